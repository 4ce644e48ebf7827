"""One step on the device: gather the tokens, run the model, sample, scatter what was sampled."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend
from backend.models.base import CausalLM
from backend.runner.logprobs import row_logprobs
from backend.runner.sampler import sample
from backend.runner.sampling_plan import SamplingPlanner
from backend.runner.step_inputs import StepInputs, build_inputs
from backend.runner.token_pool import TokenPool
from backend.scheduler.batch import RowLogprobs, StepBatch
from backend.scheduler.slots import Slots


class StepResult(NamedTuple):
    tokens: torch.Tensor  # int32[S] on the CPU
    logprobs: list[RowLogprobs]  # one for each of the batch's ``logprobs`` rows


class RunningStep:
    """A step on its way; both methods wait for it."""

    def __init__(self, samples: NDArray[np.bool_], result: Future[StepResult]) -> None:
        self._samples = samples
        self._result = result

    def tokens(self) -> NDArray[np.int32]:
        """One token per row of the batch, 0 where the row did not sample."""
        tokens = np.zeros(len(self._samples), np.int32)
        tokens[self._samples] = self._result.result().tokens.numpy()
        return tokens

    def logprobs(self) -> list[RowLogprobs]:
        """One entry for each row in the batch's ``logprobs``."""
        return self._result.result().logprobs


class ModelRunner:
    """Runs steps one after the other: in the caller's thread, or in one of its own with ``overlap``.

    The thread stands for a GPU stream: steps run in the order of their launch, and the caller goes on meanwhile.
    """

    def __init__(
        self,
        model: CausalLM,
        attention: AttentionBackend,
        slots: Slots,
        device: torch.device,
        *,
        overlap: bool = False,
    ) -> None:
        self._model = model
        self._attention = attention
        self._pool = TokenPool(slots, device)
        self._planner = SamplingPlanner(model.config.vocab_size, device)
        self._device = device
        self._stream = ThreadPoolExecutor(1, thread_name_prefix="step") if overlap else None

    def launch(self, batch: StepBatch, slots: Slots) -> RunningStep:
        """Start computing ``batch``; ``slots`` is not read after the call."""
        self._pool.upload(slots, batch.fresh)
        inputs = build_inputs(batch, slots, self._planner, self._device)
        if self._stream is not None:
            return RunningStep(batch.samples, self._stream.submit(self._run, inputs))
        done: Future[StepResult] = Future()
        done.set_result(self._run(inputs))
        return RunningStep(batch.samples, done)

    @torch.inference_mode()
    def _run(self, inputs: StepInputs) -> StepResult:
        self._attention.plan(inputs.layout)
        hidden = self._model(self._pool.gather(inputs.places), inputs.positions, self._attention)
        wanted = inputs.logprobs
        logits = plain = self._model.logits(hidden[inputs.last])
        tokens = inputs.last.new_empty(0)
        if inputs.sampling is not None:
            plain = logits.clone() if wanted is not None else logits  # sampling changes them in place
            tokens = sample(logits, inputs.sampling, self._pool.flat)
            self._pool.scatter(inputs.sampled_places, tokens)
        logprobs = row_logprobs(wanted, self._model.logits(hidden[wanted.hidden]), plain, tokens) if wanted else []
        return StepResult(tokens.to("cpu", torch.int32), logprobs)
