"""API keys: one from the command line, more from a file. Only their digests are kept, and these are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from router.config import ConfigError


class Keys:
    """Which keys are good, and whose they are.

    A key is looked up by its SHA-256, so the time that takes tells nothing about the keys that exist.
    """

    def __init__(self, named: Iterable[tuple[str, str]] = ()) -> None:
        """``named``: (name, key) pairs; names may repeat, for somebody with several keys."""
        self._names = {_digest(key): name for name, key in named}

    def __bool__(self) -> bool:
        return bool(self._names)

    def name(self, authorization: str) -> str | None:
        """Whose key the header's value carries; None when it is none of ours."""
        scheme, _, given = authorization.partition(" ")
        return self._names.get(_digest(given.strip())) if scheme.lower() == "bearer" else None


def admin_keys(single: str | None, control_plane: Iterable[str]) -> Keys:
    """The key of ``--admin-api-key`` and the admins of ``--control-plane-api-keys``. Raises :class:`ConfigError`."""
    named = [("admin", single)] if single else []
    for number, entry in enumerate(control_plane, start=1):
        words = entry.split(":", 3)
        if len(words) != 4 or words[2] not in ("admin", "user") or not words[3]:
            raise ConfigError(f"--control-plane-api-keys: entry {number} must be ID:NAME:ROLE:KEY, ROLE admin or user")
        if words[2] == "admin":
            named.append((words[1] or words[0], words[3]))
    return Keys(named)


def load_keys(single: str | None, file: str | None) -> Keys:
    """The key of ``--api-key`` and those of ``--api-key-file``. Raises :class:`ConfigError`."""
    return Keys([*([("api-key", single)] if single else []), *(_read(file) if file else [])])


def _read(file: str) -> list[tuple[str, str]]:
    """Lines of ``KEY`` or ``NAME KEY``; empty ones and those that begin with # are skipped."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"--api-key-file {file} cannot be read: {reason}") from None
    named: list[tuple[str, str]] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise ConfigError(f"--api-key-file {file}, line {number}: expected KEY or NAME KEY, got {len(words)} words")
        named.append((words[0] if len(words) == 2 else f"line {number}", words[-1]))
    if not named:
        raise ConfigError(f"--api-key-file {file} holds no key")
    return named


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
