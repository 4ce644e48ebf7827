"""What backends say of their load, in the shapes that are about. Pure: bytes in, numbers out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from router.fleet.told import counted, decoded, figure

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
    ranks = decoded(body, _Loads)
    if ranks is None or not ranks.loads:
        return None
    running = counted(sum(rank.num_running_reqs for rank in ranks.loads))
    waiting = counted(sum(rank.num_waiting_reqs for rank in ranks.loads))
    tokens = [rank.num_waiting_uncached_tokens for rank in ranks.loads]
    told = None if None in tokens else counted(sum(each or 0 for each in tokens))
    return LoadReport(running + waiting, running, told)


def read_get_load(body: bytes) -> LoadReport | None:
    """``/get_load``, a rank or a list of them."""
    ranks = decoded(body, list[_OldRank] | _OldRank)
    if not ranks:
        return None
    ranks = ranks if isinstance(ranks, list) else [ranks]
    requests = counted(sum(rank.num_reqs for rank in ranks))
    return LoadReport(requests, counted(requests - sum(rank.num_waiting_reqs for rank in ranks)))


def read_vllm_metrics(body: bytes) -> LoadReport | None:
    """vLLM's gauges, summed over engines."""
    running, waiting = _summed(_VLLM["running"], body), _summed(_VLLM["waiting"], body)
    return None if running is None or waiting is None else LoadReport(running + waiting, running)


def _summed(gauge: re.Pattern[bytes], body: bytes) -> int | None:
    """Over all engines; None when it is not there, or one of them is no number."""
    numbers = [figure(number) for number in gauge.findall(body)]
    known = [number for number in numbers if number is not None]
    return counted(round(sum(known))) if known and len(known) == len(numbers) else None


# Where a backend may tell, the most telling first.
SOURCES: tuple[tuple[str, Callable[[bytes], LoadReport | None]], ...] = (
    ("/v1/loads", read_loads),
    ("/get_load", read_get_load),
    ("/metrics", read_vllm_metrics),
)
