"""What backends say of their load, in the shapes that are about. Pure: bytes in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

_VLLM = {
    name: re.compile(rb"^vllm:num_requests_" + name.encode() + rb"(?:\{[^}]*\})? ([0-9.e+]{1,32})$", re.MULTILINE)
    for name in ("running", "waiting")
}


class LoadReport(NamedTuple):
    """One backend's work, whoever sent it. ``waiting_tokens``: uncached ones of prompts that wait; None: not told."""

    requests: int
    running: int
    waiting_tokens: int | None = None


class _Rank(msgspec.Struct):
    """A data-parallel rank in ``/v1/loads`` (ours, SGLang's)."""

    num_running_reqs: int
    num_waiting_reqs: int
    num_waiting_uncached_tokens: int | None = None


class _Loads(msgspec.Struct):
    loads: list[_Rank]


class _OldRank(msgspec.Struct):
    """The same in SGLang's ``/get_load``."""

    num_reqs: int
    num_waiting_reqs: int


def read_loads(body: bytes) -> LoadReport | None:
    """``/v1/loads``: the ranks' sum. None when it is something else."""
    ranks = _decoded(body, _Loads)
    if ranks is None or not ranks.loads:
        return None
    running = sum(rank.num_running_reqs for rank in ranks.loads)
    waiting = sum(rank.num_waiting_reqs for rank in ranks.loads)
    tokens = [rank.num_waiting_uncached_tokens for rank in ranks.loads]
    told = None if None in tokens else sum(each or 0 for each in tokens)
    return LoadReport(running + waiting, running, told)


def read_get_load(body: bytes) -> LoadReport | None:
    """``/get_load``, a rank or a list of them."""
    ranks = _decoded(body, list[_OldRank] | _OldRank)
    if not ranks:
        return None
    ranks = ranks if isinstance(ranks, list) else [ranks]
    requests = sum(rank.num_reqs for rank in ranks)
    return LoadReport(requests, requests - sum(rank.num_waiting_reqs for rank in ranks))


def read_vllm_metrics(body: bytes) -> LoadReport | None:
    """vLLM's gauges, summed over engines."""
    found = {name: [float(number) for number in pattern.findall(body)] for name, pattern in _VLLM.items()}
    if not all(found.values()):
        return None
    running = round(sum(found["running"]))
    return LoadReport(running + round(sum(found["waiting"])), running)


def _decoded(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError:
        return None


# Where a backend may tell, the most telling first.
SOURCES: tuple[tuple[str, Callable[[bytes], LoadReport | None]], ...] = (
    ("/v1/loads", read_loads),
    ("/get_load", read_get_load),
    ("/metrics", read_vllm_metrics),
)
