"""Hot state of the running requests, one row per slot, as arrays.

A slot has *known* tokens (prompt and output so far, counting the ones that launched steps will sample) and *computed*
tokens (keys and values in the pool, or being written by a launched step). Each step computes some of the missing ones;
there are no prefill and decode phases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.cache.pages import PADDING_PAGE
from backend.sampling_params import SamplingParams
from backend.scheduler.seeds import hash_seed

STOP_IDS_PER_SLOT = 16  # that every step looks at; of a slot with more, all are kept apart
NO_TOKEN = -1
NO_ROWS = np.empty(0, np.int64)
INT32_MAX = 2**31 - 1
MIN_REPETITION_PENALTY = 1e-2  # less would take float32 logits to infinity


class WindowTable(NamedTuple):
    """Like ``Slots.page_table``; what lies before ``first`` of each row is not held any more."""

    table: NDArray[np.int32]  # [num_slots, pages]
    first: NDArray[np.int32]  # [num_slots]


class LogitBias(NamedTuple):
    """What is added to the logits of some tokens; parallel arrays."""

    tokens: NDArray[np.int64]
    values: NDArray[np.float32]

    @staticmethod
    def of(bias: dict[int, float]) -> LogitBias:
        return LogitBias(np.fromiter(bias, np.int64, len(bias)), np.fromiter(bias.values(), np.float32, len(bias)))


class Slots:
    """Arrays over ``num_slots`` rows. What can be derived is not stored."""

    def __init__(self, num_slots: int, context_length: int, page_size: int) -> None:
        self.num_slots = num_slots
        self.page_size = page_size
        self.context_length = context_length
        max_pages = -(-context_length // page_size)

        self.tokens = np.zeros((num_slots, context_length), np.int32)
        self.page_table = np.full((num_slots, max_pages), PADDING_PAGE, np.int32)
        self.window: WindowTable | None = None  # of layers with a window, where those have pages of their own

        self.uid = np.full(num_slots, -1, np.int64)  # -1: not running
        self.generation = np.zeros(num_slots, np.int64)  # grows when a request leaves the slot
        self.in_flight = np.zeros(num_slots, np.int32)  # launched steps that still refer to the slot

        self.prompt_len = np.zeros(num_slots, np.int32)
        self.known = np.zeros(num_slots, np.int32)
        self.computed = np.zeros(num_slots, np.int32)
        self.limit = np.zeros(num_slots, np.int32)  # known never grows beyond
        self.target = np.zeros(num_slots, np.int32)  # computed never needs to grow beyond
        self.pages = np.zeros(num_slots, np.int32)  # entries of page_table in use
        self.tree_pages = np.zeros(num_slots, np.int32)  # the leading ones that the radix tree owns

        self.temperature = np.ones(num_slots, np.float32)
        self.top_p = np.ones(num_slots, np.float32)
        self.min_p = np.zeros(num_slots, np.float32)
        self.top_k = np.zeros(num_slots, np.int32)  # 0: all
        self.frequency_penalty = np.zeros(num_slots, np.float32)
        self.presence_penalty = np.zeros(num_slots, np.float32)
        self.repetition_penalty = np.ones(num_slots, np.float32)
        self.seed = np.zeros(num_slots, np.uint64)  # hashed, so that close seeds start far apart
        self.min_known = np.zeros(num_slots, np.int32)  # no stop token before this length
        self.logit_bias: dict[int, LogitBias] = {}  # of the slots that have any
        self.wants_logprobs = np.zeros(num_slots, np.bool_)
        self.pooled = np.zeros(num_slots, np.bool_)  # the hidden states of the prompt are wanted as one vector
        self.guided = np.zeros(num_slots, np.bool_)  # a grammar says what may be sampled
        self.stop_ids = np.full((num_slots, STOP_IDS_PER_SLOT), NO_TOKEN, np.int32)
        self.many_stop_ids: dict[int, NDArray[np.int32]] = {}  # of the slots with more of them: all, ascending

        self.version = 0  # grows whenever the set of running rows, or what belongs to one for its whole run, changes
        self._free = list(range(num_slots - 1, -1, -1))
        self._running = np.empty(0, np.int64)
        self._running_version = 0

    def reset(self) -> None:
        """Free every slot, whatever it holds; no launched step refers to any."""
        self.uid[:] = -1
        self.generation += 1
        self.in_flight[:] = self.pages[:] = self.tree_pages[:] = 0
        self.page_table[:] = PADDING_PAGE
        self.logit_bias.clear()
        self.many_stop_ids.clear()
        self.version += 1
        self._free = list(range(self.num_slots - 1, -1, -1))

    @property
    def free_slots(self) -> int:
        return len(self._free)

    def running(self) -> NDArray[np.int64]:
        """The occupied slots that still run, ascending. The same array until ``version`` changes."""
        if self._running_version != self.version:
            self._running = (self.uid >= 0).nonzero()[0]
            self._running_version = self.version
        return self._running

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Tokens still to compute. The last token of a full-length output is not: nothing will attend to it."""
        return np.minimum(self.known[rows], self.target[rows]) - self.computed[rows]

    def occupy(self, uid: int, tokens: NDArray[np.int32], prompt_len: int, limit: int) -> int:
        """Give a free slot to request ``uid``, whose known tokens are ``tokens``; nothing is computed yet."""
        slot = self._free.pop()
        self.version += 1
        self.uid[slot] = uid
        self.prompt_len[slot] = prompt_len
        self.known[slot] = len(tokens)
        self.tokens[slot, : len(tokens)] = tokens
        self.limit[slot] = limit
        self.target[slot] = max(prompt_len, limit - 1)
        self.computed[slot] = self.pages[slot] = self.tree_pages[slot] = 0
        return slot

    def set_sampling(self, slot: int, params: SamplingParams, seed: int, stop_ids: list[int]) -> None:
        self.temperature[slot] = 0.0 if params.greedy else params.temperature
        self.top_p[slot] = params.top_p
        self.top_k[slot] = min(max(params.top_k, 0), INT32_MAX)
        self.min_p[slot] = params.min_p
        self.frequency_penalty[slot] = params.frequency_penalty
        self.presence_penalty[slot] = params.presence_penalty
        self.repetition_penalty[slot] = max(params.repetition_penalty, MIN_REPETITION_PENALTY)
        self.seed[slot] = hash_seed(seed)
        if params.logit_bias:
            self.logit_bias[slot] = LogitBias.of(params.logit_bias)
        self.min_known[slot] = self.prompt_len[slot] + params.min_new_tokens
        stop_ids = [each for each in stop_ids if 0 <= each <= INT32_MAX]
        self.stop_ids[slot] = NO_TOKEN
        if len(stop_ids) > STOP_IDS_PER_SLOT:
            self.many_stop_ids[slot] = np.unique(np.array(stop_ids, np.int32))
        else:
            self.stop_ids[slot, : len(stop_ids)] = stop_ids

    def stopped(self, rows: NDArray[np.int64], tokens: NDArray[np.int32]) -> NDArray[np.int64]:
        """Indices in ``rows`` of those that end with their token of ``tokens``."""
        ends = self.stop_ids[rows] == tokens[:, None]
        if not self.many_stop_ids:
            return ends.any(axis=1).nonzero()[0] if np.count_nonzero(ends) else NO_ROWS
        found = ends.any(axis=1)
        for i, ids in self._with_many(rows):
            found[i] = np.searchsorted(ids, tokens[i], "right") > np.searchsorted(ids, tokens[i])
        return found.nonzero()[0]

    def stops_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(index in ``rows``, token) for each of their stop tokens."""
        index, column = (self.stop_ids[rows] != NO_TOKEN).nonzero()
        tokens = self.stop_ids[rows[index], column].astype(np.int64)
        many = list(self._with_many(rows)) if self.many_stop_ids else []
        index = np.concatenate((index, *(np.full(len(ids), i) for i, ids in many)))
        return index, np.concatenate((tokens, *(ids for _, ids in many)))

    def _with_many(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int32]]]:
        for i, slot in enumerate(rows.tolist()):
            if slot in self.many_stop_ids:
                yield i, self.many_stop_ids[slot]

    def stop_running(self, slot: int) -> None:
        """The request is over: results of steps in flight no longer count.

        The row itself stays until :meth:`vacate`.
        """
        self.version += 1
        self.uid[slot] = -1
        self.generation[slot] += 1

    def vacate(self, slot: int) -> None:
        """The slot may be occupied again; no launched step refers to it."""
        if self.uid[slot] != -1 or self.in_flight[slot]:
            raise ValueError(f"slot {slot} is still in use")
        self.logit_bias.pop(slot, None)
        self.many_stop_ids.pop(slot, None)
        self.page_table[slot, : self.pages[slot]] = PADDING_PAGE
        self.pages[slot] = self.tree_pages[slot] = 0
        self._free.append(slot)

    def append_pages(self, slot: int, pages: NDArray[np.int32]) -> None:
        have = self.pages[slot]
        self.page_table[slot, have : have + len(pages)] = pages
        self.pages[slot] += len(pages)

    def row_pages(self, slot: int) -> NDArray[np.int32]:
        return self.page_table[slot, : self.pages[slot]]
