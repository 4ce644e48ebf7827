"""The requests that the scheduler knows, what the steps bring them, and how they end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backend.messages import Finish, FromScheduler, TokenLogprobs
from backend.scheduler.batch import LaunchedStep, RowLogprobs, StepBatch
from backend.scheduler.guided import Guides
from backend.scheduler.queue import Request
from backend.scheduler.rows import Rows

STEP_FAILED = "The model failed on this request; the server's log says more."


class Running:
    """Owns the table of requests and the message that is being filled.

    A request that has ended leaves at once for its client, but its row only when no launched step refers to it.
    """

    def __init__(self, rows: Rows, guides: Guides) -> None:
        self.rows = rows
        self._guides = guides
        self.slots = rows.slots
        self.requests: dict[int, Request] = {}  # by uid: waiting and running
        self.leaving: dict[int, Request] = {}  # by slot: over, but a launched step still refers to the row
        self.out = FromScheduler()

    def take_output(self) -> FromScheduler:
        """What was gathered since the last call."""
        out, self.out = self.out, FromScheduler()
        return out

    def take_in(self, batch: StepBatch, launched: LaunchedStep, tokens: NDArray[np.int32]) -> None:
        """The results of one step: tokens, finished rows, prompts to share."""
        slots = self.slots
        rows, ends = batch.rows, batch.starts + batch.lens
        slots.in_flight[rows] -= 1
        # Written for leaving rows too: their pages enter the tree under these tokens.
        sampled = batch.samples.nonzero()[0]
        everyone = len(sampled) == len(rows)
        new_rows, new_tokens, places = (
            (rows, tokens, ends) if everyone else (rows[sampled], tokens[sampled], ends[sampled])
        )
        slots.tokens[new_rows, places] = new_tokens
        live = None if batch.version == slots.version else slots.generation[rows] == batch.generations
        new = sampled
        if live is not None:
            new = (live & batch.samples).nonzero()[0]
            new_rows, new_tokens = rows[new], tokens[new]
        self.out.uids += slots.uid[new_rows].tolist()
        self.out.tokens += new_tokens.tolist()
        if batch.logprobs:
            self._tell_logprobs(batch, live, tokens, launched.logprobs())

        if batch.pooled:
            self._tell_vectors(batch, live, launched.pooled())

        stopped = new[slots.stopped(new_rows, new_tokens)]
        full = ends + batch.samples >= slots.limit[rows]
        ending = np.count_nonzero(full) > 0 or len(stopped) > 0
        if batch.in_prompt is not None:
            self._share_prompts(batch, batch.in_prompt if live is None else batch.in_prompt & live)
        if ending:
            self._end(batch, tokens, stopped, full if live is None else full & live)
        if batch.allowed is not None:
            self._follow_grammars(batch.allowed.rows, batch, tokens)
        self._vacate_left()

    def _end(
        self, batch: StepBatch, tokens: NDArray[np.int32], stopped: NDArray[np.int64], full: NDArray[np.bool_]
    ) -> None:
        """Finish the rows that met a stop token, and those that reached their length."""
        full[stopped] = False
        for i in stopped:
            self.finish(self.requests[int(self.slots.uid[batch.rows[i]])], "stop", matched=int(tokens[i]))
        for i in full.nonzero()[0]:
            self.finish(self.requests[int(self.slots.uid[batch.rows[i]])], "length")

    def _follow_grammars(self, guided: NDArray[np.int64], batch: StepBatch, tokens: NDArray[np.int32]) -> None:
        """Take the sampled tokens of ``guided`` rows into their grammars, and the tokens that must follow."""
        running = self.slots.generation[batch.rows[guided]] == batch.generations[guided]
        guided = guided[running]
        for slot, forced, complete, problem in self._guides.advance(batch.rows[guided], tokens[guided]):
            request = self.requests[int(self.slots.uid[slot])]
            self.tell(request.uid, forced)
            if problem:
                self.finish(request, "abort", message=problem)
            elif complete:
                self.finish(request, "stop")

    def tell(self, uid: int, tokens: Sequence[int]) -> None:
        """Output tokens of a request that no step sampled."""
        self.out.uids += [uid] * len(tokens)
        self.out.tokens += tokens

    def _tell_vectors(
        self, batch: StepBatch, live: NDArray[np.bool_] | None, vectors: list[NDArray[np.float32]]
    ) -> None:
        for row, vector in zip(batch.pooled, vectors, strict=True):
            if live is not None and not live[row.index]:
                continue
            request = self.requests[int(self.slots.uid[batch.rows[row.index]])]
            request.vector = vector if request.vector is None else request.vector + vector
            if row.last:
                whole = request.vector / np.float32(request.prompt_len if row.mean else 1)
                self.out.embeddings.append((request.uid, whole.tobytes()))

    def _tell_logprobs(
        self, batch: StepBatch, live: NDArray[np.bool_] | None, tokens: NDArray[np.int32], results: list[RowLogprobs]
    ) -> None:
        slots = self.slots
        for row, result in zip(batch.logprobs, results, strict=True):
            slot = batch.rows[row.index]
            if live is not None and not live[row.index]:
                continue
            uid = int(slots.uid[slot])
            prompt = slots.tokens[slot, row.first : row.last].tolist()
            for token, place in zip(prompt, result.prompt, strict=True):
                self.out.prompt_logprobs.append(TokenLogprobs(uid, token, *place))
            for place in result.output:
                self.out.logprobs.append(TokenLogprobs(uid, int(tokens[row.index]), *place))

    def _share_prompts(self, batch: StepBatch, prompts: NDArray[np.bool_]) -> None:
        """Put what is computed of prompts into the tree, for requests that wait for it or come meanwhile."""
        for i in prompts.nonzero()[0]:
            slot = int(batch.rows[i])
            # What later steps compute may still fail: it enters the tree when the row leaves.
            self.rows.share_prefix(slot, self.requests[int(self.slots.uid[slot])], int(batch.starts[i] + batch.lens[i]))

    def fail_step(self, batch: StepBatch) -> None:
        """The device failed: abort the rows, and let nothing that they computed from here on enter the tree."""
        slots = self.slots
        slots.in_flight[batch.rows] -= 1
        slots.computed[batch.rows] = np.minimum(slots.computed[batch.rows], batch.starts)
        for row in batch.rows[slots.generation[batch.rows] == batch.generations]:
            self.finish(self.requests[int(slots.uid[row])], "abort", message=STEP_FAILED)
        self._vacate_left()

    def finish(self, request: Request, kind: str, matched: int = -1, message: str = "", status_code: int = 500) -> None:
        del self.requests[request.uid]
        self.leave(request)
        self.out.finished.append(Finish(request.uid, kind, matched, message, status_code))

    def leave(self, request: Request) -> None:
        """End the request's run, whatever the reason. Idempotent.

        The row is given back when no launched step uses it.
        """
        slot = request.slot
        if slot < 0:
            return
        self.slots.stop_running(slot)
        request.slot = -1
        if self.slots.in_flight[slot]:
            self.leaving[slot] = request
        else:
            self.rows.vacate(slot, request)

    def _vacate_left(self) -> None:
        """Give back the rows of requests that have ended, once no launched step refers to them."""
        if self.leaving:
            for slot in [slot for slot in self.leaving if not self.slots.in_flight[slot]]:
                self.rows.vacate(slot, self.leaving.pop(slot))
