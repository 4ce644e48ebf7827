"""Requests whose output follows a grammar: what each may say next, and what it can only say.

A row's next mask needs the value of its last token: a step with such rows is settled before the next one is launched.
Tokens without an alternative are appended as known ones, so that one step computes them all (jump-forward). The last
token before a row's limit, and a stop token, are always sampled: rows end in one place only.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.grammar import (
    AnswerState,
    GrammarCompiler,
    GrammarError,
    GrammarSpec,
    Startable,
    bitmask_words,
)
from backend.grammar.errors import NO_GRAMMARS
from backend.messages import NewRequest
from backend.scheduler.batch import AllowedTokens, StepBatch
from backend.scheduler.queue import Request
from backend.scheduler.slots import Slots

COMPILE_POLL_SECONDS = 0.02  # the loop must go on hearing messages while nothing but grammars is under way


@dataclass(slots=True)
class Guide:
    """Where one request's output stands in its grammar. Kept when the request is retracted."""

    compiled: Future[Startable]
    stops: frozenset[int] = frozenset()  # tokens that end it, which are never appended
    state: AnswerState | None = None  # once the request was first about to run
    problem: str = ""  # why its mask could not be computed
    jumps: bool = True  # whether forced tokens are appended; their log probabilities would be missing
    after: int = -1  # the sampled token that it begins after (the end of the reasoning); -1 once it has begun
    unless: int = -1  # before the first token: it begins at once, unless this one (the start of a reasoning) is sampled

    def advance(self, token: int, room: int) -> tuple[list[int], bool]:
        """``token`` was sampled: (up to ``room`` tokens that must follow, whether the answer is complete then).

        Raises GrammarError.
        """
        state = self.state
        if state is None:
            raise GrammarError("a row runs whose grammar was never started")
        if self.problem:
            raise GrammarError(self.problem)
        unless, self.unless = self.unless, -1
        if unless >= 0 and token != unless:
            self.after = -1  # no reasoning: the answer has begun
        if self.after < 0:
            state.advance(token)
        elif self.after == token:
            self.after = -1
        else:
            return [], False
        return self.jump(room), state.is_done

    def jump(self, room: int) -> list[int]:
        """Up to ``room`` tokens without an alternative, taken into the state."""
        return self.state.jump(room, self.stops) if self.state is not None and self.jumps else []


class Followed(NamedTuple):
    """What a sampled token meant for the row in ``slot``."""

    slot: int
    forced: Sequence[int] = ()  # appended after it
    complete: bool = False
    problem: str = ""  # not empty: the row cannot go on


class Guides:
    """Drives the grammars of all requests. Every call may find that one of them has failed: it returns why."""

    def __init__(self, slots: Slots, compiler: GrammarCompiler | None, vocab_size: int) -> None:
        self._slots = slots
        self._compiler = compiler
        self._words = bitmask_words(vocab_size)
        self._filler = None if compiler is None else compiler.filler()
        self._by_slot: dict[int, Guide] = {}
        self._jumped: set[int] = set()  # slots whose forced tokens the device has not seen

    def begin(self, new: NewRequest, spec: GrammarSpec) -> Guide:
        """Start compiling the ``spec`` of a request. Raises GrammarError when this server has no grammars."""
        if self._compiler is None:
            raise GrammarError(NO_GRAMMARS)
        compiled = self._compiler.submit(spec)
        return Guide(
            compiled,
            stops=frozenset(new.stop_token_ids),
            jumps=new.logprobs is None,
            after=new.grammar_after,
            unless=new.grammar_unless,
        )

    @staticmethod
    def wait_for(requests: Sequence[Request]) -> None:
        """Nothing else is to be done: sleep until a grammar of ``requests`` is compiled, but not for long."""
        pending = [request.guide.compiled for request in requests if request.guide is not None]
        if pending:
            wait(pending, COMPILE_POLL_SECONDS, FIRST_COMPLETED)

    def prepare(self, request: Request, room: int) -> str | None:
        """Before a request first runs: its state, and up to ``room`` tokens that its output begins with in any case.

        They are appended to the request's tokens. Returns why it cannot run.
        """
        guide = request.guide
        if guide is None or guide.state is not None:
            return None
        try:
            guide.state = guide.compiled.result().start()
            if guide.after >= 0:
                return None
            forced = guide.jump(room)
            if guide.state.is_done:  # the whole answer is forced: its last token is left to be sampled
                guide.state.rollback(1)
                forced.pop()
        except GrammarError as error:
            return str(error)
        if forced:
            request.tokens = np.concatenate((request.tokens, np.array(forced, np.int32)))
        return None

    def place(self, slot: int, guide: Guide | None) -> None:
        """A request with ``guide`` (if any) now runs in ``slot``."""
        self._slots.guided[slot] = guide is not None
        self._jumped.discard(slot)  # an answer before may have ended with forced tokens
        if guide is None:
            self._by_slot.pop(slot, None)
        else:
            self._by_slot[slot] = guide

    def advance(self, rows: NDArray[np.int64], tokens: NDArray[np.int32]) -> list[Followed]:
        """The slots ``rows`` sampled ``tokens``: what follows from that, where anything does."""
        slots, followed = self._slots, []
        rooms = slots.limit[rows] - slots.known[rows] - 1
        for slot, token, room in zip(rows.tolist(), tokens.tolist(), rooms.tolist(), strict=True):
            guide = self._by_slot[slot]
            try:
                forced, complete = guide.advance(token, room)
            except GrammarError as error:
                followed.append(Followed(slot, problem=str(error)))
                continue
            if forced:
                self._append(slot, forced)
            if forced or complete:
                followed.append(Followed(slot, forced, complete))
        return followed

    def _append(self, slot: int, forced: list[int]) -> None:
        slots = self._slots
        known = int(slots.known[slot])
        slots.tokens[slot, known : known + len(forced)] = forced
        slots.known[slot] = known + len(forced)
        self._jumped.add(slot)

    def mask(self, batch: StepBatch) -> StepBatch:
        """``batch`` with what its guided rows may sample."""
        guided = self._slots.guided[batch.rows]
        if not np.count_nonzero(guided):
            return batch
        sampling = (guided & batch.samples).nonzero()[0]
        guides = [self._by_slot[int(slot)] for slot in batch.rows[sampling]]
        jumped, self._jumped = sorted(self._jumped), set()
        return replace(
            batch,
            allowed=AllowedTokens(sampling, lambda: self._fill(guides)) if guides else None,
            fresh=np.union1d(batch.fresh, np.array(jumped, np.int64)) if jumped else batch.fresh,
        )

    def _fill(self, guides: Sequence[Guide]) -> NDArray[np.int32]:
        """The masks of a step's rows. Runs beside the loop, while it waits for this very step: states stand still.

        A row whose mask fails may say anything, and is ended when its token comes back.
        """
        bits = np.full((len(guides), self._words), -1, np.int32)
        bound = [(row, guide.state) for row, guide in enumerate(guides) if guide.after < 0 or guide.unless >= 0]
        rows = [row for row, state in bound if state is not None]
        states = [state for _, state in bound if state is not None]
        if self._filler is not None:
            for row, problem in self._filler.fill(states, rows, bits).items():
                guides[row].problem = problem
                bits[row] = -1
        for row, guide in enumerate(guides):
            if guide.unless >= 0:
                bits[row].view(np.uint32)[guide.unless // 32] |= np.uint32(1 << guide.unless % 32)
        return bits
