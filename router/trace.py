"""``--record-trace FILE``: the traffic without its text, in Mooncake's JSONL, for replay.

A line is a request: when it came, its lengths, and a number per block of its prompt; equal numbers mean equal prefixes.
The numbers are keyed with a secret of this run, so that nobody can try out texts against them.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import msgspec
import xxhash

from policies.policy import RouteRequest
from router.dossier import Attempt, Dossier

log = logging.getLogger(__name__)

BLOCK_TOKENS = 64  # that a number stands for, by the bytes a token of the first long prompt has
USUAL_BYTES_PER_TOKEN = 4  # until one came
LONG_BYTES = 2048  # in shorter prompts the template's tokens hide how many bytes a token has
MOST_BYTES_PER_TOKEN = 16
MAX_WAITING = 10_000  # lines; a disk that is slower than the traffic loses some
BEGINNING = b'{"timestamp":'  # of a line
TAIL_BYTES = 2**20  # of a recording that goes on, in which its newest line is
_STAMP = re.compile(rb'^\{"timestamp":(\d{1,18}(?:\.\d{1,9})?),', re.MULTILINE)
_JSON = msgspec.json.Encoder()


class TraceRecorder:
    """A watcher that writes a line when an attempt has ended well. A thread of its own does the writing."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError`` when the file cannot be written."""
        try:
            self._resumed_ms = _end_of(path)
            self._file: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OSError(error.errno, f"--record-trace {path}: {error.strerror}") from None
        self._secret = secrets.randbits(64)
        self._queue: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._started: float | None = None
        self._block_bytes = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._write, name="trace", daemon=True)
        self._thread.start()

    def chosen(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        """Nothing yet: its outcome belongs to the line."""

    def settled(self, dossier: Dossier, route: RouteRequest, attempt: Attempt) -> None:
        if attempt.outcome not in ("ok", "client_gone", "cut") or not route.text:
            return
        if self._queue.qsize() >= MAX_WAITING:
            self.lost += 1
            return
        first = dossier.attempts[0].at if dossier.attempts else attempt.at
        self._started = first if self._started is None else self._started
        self._queue.put(
            {
                "timestamp": round(self._resumed_ms + (first - self._started) * 1000, 3),
                "input_length": attempt.prompt_tokens or route.prompt_tokens or 1,
                "output_length": attempt.output_tokens or 0,
                "hash_ids": route,  # hashed by the writing thread
                "block_size": BLOCK_TOKENS,
                "cached_tokens": attempt.cached_tokens,
                "predicted_cached_tokens": attempt.decision.cached_tokens,
                "ttft_ms": None if attempt.ttft_ms is None else round(attempt.ttft_ms, 3),
                "reason": attempt.decision.reason,
                "outcome": attempt.outcome,
            }
        )

    def close(self) -> None:
        """Write what is left."""
        self._queue.put(None)
        self._thread.join()
        self._file.close()

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            route = line["hash_ids"]
            line["hash_ids"] = self._blocks(route, line["input_length"])
            try:
                self._file.write(_JSON.encode(line).decode() + "\n")
                if self._queue.empty():
                    self._file.flush()
            except OSError as error:
                self.lost += 1
                log.warning("a line of the trace was lost: %s", error)

    def _blocks(self, route: RouteRequest, tokens: int) -> list[int]:
        """Numbers below 2**53, which any JSON reader keeps exact; the last block may be longer or shorter.

        Readers cut what is more than the prompt's blocks, so the last number is that of the whole text.
        """
        size = self._size_of_block(len(route.text), tokens)
        chain = xxhash.xxh3_64_intdigest(f"{route.model}\0{route.namespace}".encode(), seed=self._secret)
        numbers = []
        for start in range(0, len(route.text), size):
            chain = xxhash.xxh3_64_intdigest(route.text[start : start + size], seed=chain)
            numbers.append(chain >> 11)
        return [*numbers[: -(-tokens // BLOCK_TOKENS) - 1], numbers[-1]]

    def _size_of_block(self, text_bytes: int, tokens: int) -> int:
        """In bytes; the same for all prompts from the first long one on, else equal texts had different numbers."""
        if not self._block_bytes and text_bytes >= LONG_BYTES:
            per_token = min(max(1.0, text_bytes / tokens), MOST_BYTES_PER_TOKEN)
            self._block_bytes = round(BLOCK_TOKENS * per_token)
        return self._block_bytes or BLOCK_TOKENS * USUAL_BYTES_PER_TOKEN


def _end_of(path: Path) -> float:
    """The newest timestamp of a recording that is there already, which a new one follows: else the two would overlay.

    A line of ours without an end was cut off when its router was killed; it is taken away. Raises ``OSError``.
    """
    if not path.is_file() or not path.stat().st_size:
        return 0.0
    with path.open("rb+") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        tail = file.read()
        whole, _, cut = tail.rpartition(b"\n")
        if cut.startswith(BEGINNING):
            file.truncate(file.tell() - len(cut))
    return max((float(stamp) for stamp in _STAMP.findall(whole)), default=0.0)
