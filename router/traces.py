"""Readers of traces without text: Mooncake's and Bailian's JSONL files, and the router's own recordings.

A line holds the arrival, the lengths and one number per block of the prompt; equal numbers mean equal prefixes.

- Mooncake: ``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` (blocks of 512 tokens)
- Bailian: the same with ``timestamp`` in seconds and blocks of 16 tokens, and ``chat_id``
- recorded with ``--record-trace``: as Mooncake, with ``block_size``
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from policies.sim.request import SimRequest

MOONCAKE_BLOCK, BAILIAN_BLOCK = 512, 16


class TraceError(ValueError):
    """A trace that cannot be used; one sentence for the user."""


def read_trace(path: Path, limit: int | None = None) -> list[SimRequest]:
    """The first ``limit`` requests, sorted by arrival, which begins at 0. Raises :class:`TraceError`."""
    requests: list[SimRequest] = []
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    requests.append(_request(_parsed(path, number, line), f"{path}, line {number}"))
                if len(requests) == limit:
                    break
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TraceError(f"cannot read the trace {path}: {error}") from None
    if not requests:
        raise TraceError(f"the trace {path} has no requests")
    requests.sort(key=lambda request: request.arrival)
    start = requests[0].arrival
    return [replace(request, arrival=request.arrival - start) for request in requests]


def spread(requests: Sequence[SimRequest], seconds: float, seed: int) -> list[SimRequest]:
    """Requests that arrive in batches, each moved to a random moment in the ``seconds`` after its batch."""
    rng = Random(seed)
    moved = [replace(request, arrival=request.arrival + rng.uniform(0.0, seconds)) for request in requests]
    return sorted(moved, key=lambda request: request.arrival)


def at_rate(requests: Sequence[SimRequest], rate: float) -> list[SimRequest]:
    """The same requests at ``rate`` times their speed."""
    return [replace(request, arrival=request.arrival / rate) for request in requests]


def _open(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return TextIOWrapper(gzip.open(path), encoding="utf-8")
    return path.open(encoding="utf-8")


def _parsed(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}, line {number} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TraceError(f"{path}, line {number} is not a JSON object")
    return value


def _request(line: dict[str, Any], where: str) -> SimRequest:
    bailian = "chat_id" in line
    try:
        block = int(line.get("block_size", BAILIAN_BLOCK if bailian else MOONCAKE_BLOCK))
        hashes = [int(number) for number in line["hash_ids"]]
        length, output = int(line["input_length"]), max(1, int(line["output_length"]))
        arrival = float(line["timestamp"]) * (1.0 if bailian else 1e-3)
    except KeyError as error:
        raise TraceError(f"{where} has no field {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise TraceError(f"{where}: {error}") from None
    if block < 1:
        raise TraceError(f"{where}: block_size must be at least 1, got {block}")
    if not math.isfinite(arrival):
        raise TraceError(f"{where}: {arrival} is no timestamp")
    sizes = list(islice(_sizes(length, block), len(hashes)))
    if sizes:  # the incomplete last block may have no number: nobody else has it
        sizes[-1] += length - sum(sizes)
    if not sizes:
        raise TraceError(f"{where}: a prompt of {length} tokens with {len(hashes)} blocks")
    return SimRequest(arrival, tuple(hashes[: len(sizes)]), tuple(sizes), output, session=str(line.get("chat_id", "")))


def _sizes(length: int, block: int) -> Iterator[int]:
    for start in range(0, length, block):
        yield min(block, length - start)
