"""Requests that wait for a slot, and what the scheduler remembers of each request for its whole life."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.cache.node import Node
from backend.messages import LogprobSpec, NewRequest
from backend.sampling_params import SamplingParams

if TYPE_CHECKING:
    from backend.scheduler.guided import Guide


@dataclass(slots=True, eq=False)
class Request:
    """Cold fields of one request. ``tokens`` grows by its output only when it is retracted and must start again."""

    uid: int
    tokens: NDArray[np.int32]  # known when (re-)admitted: the prompt, and the output of earlier runs
    prompt_len: int
    sampling: SamplingParams
    seed: int
    stop_ids: list[int]
    namespace: str
    priority: int = 0
    logprobs: LogprobSpec | None = None
    logprob_from: int = 0  # prompt positions before it have been told, or are not wanted
    uncached: int = 0  # tokens that the cache lacked when the request came to wait
    slot: int = -1  # -1: waiting
    node: Node | None = None  # locked end of the row's part in the radix tree
    told_cached: bool = False
    pooling: str = ""  # "last", "mean" or "classify"
    vector: NDArray[np.float32] | None = None  # summed over the steps so far
    guide: Guide | None = None  # where its output stands in its grammar, when it has to follow one

    @staticmethod
    def of(new: NewRequest, seed: int) -> Request:
        """As it arrives from the frontend; ``seed`` is its own or one drawn for it."""
        tokens = np.frombuffer(new.input_ids, np.int32)
        request = Request(
            uid=new.uid,
            tokens=tokens,
            prompt_len=len(tokens),
            sampling=new.sampling,
            seed=seed,
            stop_ids=new.stop_token_ids,
            namespace=new.namespace,
            priority=new.priority,
            logprobs=new.logprobs,
            pooling=new.pooling,
        )
        if new.logprobs is not None:
            request.logprob_from = max(new.logprobs.start, 1) if new.logprobs.start >= 0 else len(tokens)
        return request

    @property
    def cacheable(self) -> int:
        """How many leading tokens may come from the cache.

        At least one token is computed, or there would be no logits to sample from; where log probabilities of the
        prompt are wanted, so are all from the one before the first of them; where the mean is, all.
        """
        if self.pooling == "mean":
            return 0
        if self.logprobs is None or self.logprobs.start < 0:
            return len(self.tokens) - 1
        return min(len(self.tokens) - 1, max(self.logprob_from - 1, 0))


class WaitingQueue:
    """In order of arrival; a retracted request goes back to the head. Every operation takes constant time."""

    def __init__(self) -> None:
        self._queue: OrderedDict[int, Request] = OrderedDict()
        self.uncached_tokens = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._queue.values())

    def append(self, request: Request) -> None:
        self._queue[request.uid] = request
        self.uncached_tokens += request.uncached

    def push_front(self, request: Request) -> None:
        self.append(request)
        self._queue.move_to_end(request.uid, last=False)

    def remove(self, request: Request) -> None:
        del self._queue[request.uid]
        self.uncached_tokens -= request.uncached
