"""Workers from a file that is read again whenever it changes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from router.fleet.discovery.membership import DiscoveryError, Membership
from router.fleet.worker import WorkerSpec

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class WorkerFileError(DiscoveryError):
    """The file cannot be used."""


class FileSource:
    """Watches ``path``. A file that cannot be used is reported once, and the workers stay as they were.

    A change counts once two looks in a row saw it: half of a list that is being written is a list too.
    """

    def __init__(self, path: str, membership: Membership, look_seconds: float = LOOK_SECONDS) -> None:
        self._path = path
        self._membership = membership
        self._look_seconds = look_seconds
        self._content: bytes | None = None
        self._seen: bytes | None = None  # at the last look
        self._complaint = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read the file now and watch it. Raises :class:`WorkerFileError` when it cannot be used."""
        self._content = self._seen = _read(self._path)
        self._membership.become(parse_workers(self._path, self._content))
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"watch {self._path}")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def look(self) -> None:
        """Read the file again if it has another content."""
        try:
            content = _read(self._path)
            settled, self._seen = content == self._seen, content
            if content == self._content or not settled:
                return
            self._content = content
            if not content.strip():  # whoever writes a file anew empties it first
                raise WorkerFileError(f"{self._path} is empty ([] means no workers)")
            self._membership.become(parse_workers(self._path, content))
            self._complaint = ""
        except DiscoveryError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("%s; the workers stay as they are", error)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            self.look()


def parse_workers(path: str, content: bytes) -> list[WorkerSpec]:
    """Workers of YAML or JSON: a list of addresses or of bodies of POST /workers, also under the key ``workers``."""
    try:
        parsed = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise WorkerFileError(f"{path} is not valid YAML or JSON{where}") from None
    rows = parsed.get("workers") if isinstance(parsed, dict) else parsed
    if rows is None:
        rows = []
    if not isinstance(rows, list):
        raise WorkerFileError(f"{path} must hold a list of workers, got a {type(rows).__name__}")
    return [_spec(path, number, row) for number, row in enumerate(rows, start=1)]


def _spec(path: str, number: int, row: Any) -> WorkerSpec:
    try:
        return WorkerSpec.model_validate({"url": row} if isinstance(row, str) else row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "entry"
        reason = first["msg"].removeprefix("Value error, ")
        raise WorkerFileError(f"{path}, worker {number}: {field}: {reason}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise WorkerFileError(f"{path} cannot be read: {error.strerror}") from None
