"""Prompts of similar length share a worker: short ones do not wait behind long ones."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from policies.cost.fleet_view import view_of
from policies.least_load import least_loaded, wait
from policies.policy import Candidate, Decision, Policy, RouteRequest

WINDOW = 2000  # prompts that the boundaries are fitted to
TOO_UNEVEN = 2.0  # a bucket's worker may wait so many times as long as the best one


class BucketPolicy(Policy):
    """Contiguous ranges of prompt length, one a worker, fitted so that each range brings the same amount of work.

    The boundaries are fitted anew every ``adjust_s``. Reasons: ``bucket``, ``less_loaded`` (nothing fitted yet, or the
    bucket's worker is far busier than another).
    """

    name = "bucket"

    def __init__(self, rng: Random, adjust_s: float) -> None:
        self._rng = rng
        self._adjust_s = adjust_s
        self._lengths: deque[int] = deque(maxlen=WINDOW)
        self._fitted: list[int] = []  # sorted lengths at the last fit
        self._work: list[int] = []  # their running sum
        self._fitted_at: float | None = None

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        least = least_loaded(request, candidates, self._rng)
        if not self._fitted:
            return Decision(least, reason="less_loaded")
        workers = view_of(candidates).workers
        ordered = sorted(workers)
        chosen = candidates[workers.index(ordered[self._bucket(request.prompt_tokens, len(ordered))])]
        other = candidates[workers.index(least)]
        if wait(chosen, request) > TOO_UNEVEN * wait(other, request):
            return Decision(least, reason="less_loaded")
        return Decision(chosen.worker, reason="bucket")

    def _bucket(self, length: int, buckets: int) -> int:
        """The share of all work that shorter prompts bring tells the bucket; equally long ones share theirs."""
        shorter, longer = bisect_left(self._fitted, length), bisect_right(self._fitted, length)
        low = self._work[shorter - 1] if shorter else 0
        high = self._work[longer - 1] if longer else 0
        place = self._rng.uniform(low, high) / max(1, self._work[-1])
        return min(int(place * buckets), buckets - 1)

    def record(self, request: RouteRequest, worker: str, now: float) -> None:
        self._lengths.append(request.prompt_tokens)
        if self._fitted_at is None or now - self._fitted_at >= self._adjust_s:
            self._fitted_at = now
            self._fitted = sorted(self._lengths)
            self._work = list(accumulate(self._fitted))
