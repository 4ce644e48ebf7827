"""One step on the device: gather the tokens, run the model, sample, scatter what was sampled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend
from backend.cache.host_copies import HostCopies
from backend.cache.host_moves import Transfers
from backend.models.base import CausalLM
from backend.runner.graphs import DecodeGraphs
from backend.runner.logprobs import RowTensors, row_logprobs
from backend.runner.sampler import sample
from backend.runner.sampling_plan import SamplingPlanner
from backend.runner.step_inputs import StepInputs, build_inputs
from backend.runner.stream import Pending, step_stream
from backend.runner.token_pool import TokenPool
from backend.scheduler.batch import RowLogprobs, StepBatch
from backend.scheduler.slots import Slots
from backend.transfer import Uploader


class StepResult(NamedTuple):
    tokens: torch.Tensor  # int32[S] on the CPU
    logprobs: list[RowTensors]  # one for each of the batch's ``logprobs`` rows
    pooled: list[torch.Tensor]  # float32[hidden] on the CPU for each of its ``pooled`` rows


class RunningStep:
    """A step on its way; both methods wait for it."""

    def __init__(self, samples: NDArray[np.bool_], result: Pending[StepResult]) -> None:
        self._samples = samples
        self._result = result

    def tokens(self) -> NDArray[np.int32]:
        """One token per row of the batch, 0 where the row did not sample."""
        tokens = np.zeros(len(self._samples), np.int32)
        tokens[self._samples] = self._result.result().tokens.numpy()
        return tokens

    def logprobs(self) -> list[RowLogprobs]:
        """One entry for each row in the batch's ``logprobs``."""
        return [row.logprobs() for row in self._result.result().logprobs]

    def pooled(self) -> list[NDArray[np.float32]]:
        """A vector for each row in the batch's ``pooled``."""
        return [vector.numpy() for vector in self._result.result().pooled]


class ModelRunner:
    """Runs steps one after the other, on a stream of its own; with ``overlap`` the caller goes on meanwhile."""

    def __init__(
        self,
        model: CausalLM,
        attention: AttentionBackend,
        slots: Slots,
        device: torch.device,
        *,
        overlap: bool = False,
        copies: HostCopies | None = None,
    ) -> None:
        self._model = model
        self._copies = copies
        self._attention = attention
        self._stream = step_stream(device, overlap=overlap)
        self._upload = Uploader(device)
        self._pool = TokenPool(slots, device, self._upload)
        self._planner = SamplingPlanner(model.config.vocab_size, device)
        self._device = device
        self._graphs: DecodeGraphs | None = None

    def capture(self, sizes: Sequence[int], *, pads: bool = True) -> None:
        """Capture decode steps of ``sizes`` rows as CUDA graphs; the first step has not been launched."""
        with self._stream.current():
            self._graphs = DecodeGraphs(self._model, self._attention, self._pool, self._upload, sizes, pads=pads)
            self._graphs.capture()

    def launch(self, batch: StepBatch, slots: Slots) -> RunningStep:
        """Start computing ``batch``; ``slots`` is not read after the call."""
        with self._stream.current():
            self._pool.upload(slots, batch.fresh)
            inputs = build_inputs(batch, slots, self._planner, self._device)
        return RunningStep(batch.samples, self._stream.submit(partial(self._run, inputs, batch.transfers)))

    @torch.inference_mode()
    def _run(self, inputs: StepInputs, transfers: Transfers | None = None) -> StepResult:
        if self._copies is not None and transfers is not None:
            self._copies.start(transfers)
        graphs = self._graphs
        if graphs is not None and inputs.is_decode and (size := graphs.size_for(len(inputs.positions))):
            return self._replay(graphs, inputs, size)
        self._attention.plan(inputs.layout)
        places, positions, sampled_places = self._upload(inputs.places, inputs.positions, inputs.sampled_places)
        hidden = self._model(self._pool.gather(places), positions, self._attention)
        last = hidden if inputs.last is None else hidden[self._upload(inputs.last)[0]]
        logits = self._model.logits(last)
        if inputs.sampling is None:
            return self._result(inputs, hidden, logits, places.new_empty(0))
        plain = logits.clone() if inputs.logprobs is not None else logits  # sampling may change them in place
        tokens = sample(logits, inputs.sampling, self._pool.flat)
        self._pool.scatter(sampled_places, tokens)
        return self._result(inputs, hidden, plain, tokens)

    def _replay(self, graphs: DecodeGraphs, inputs: StepInputs, size: int) -> StepResult:
        """The same for a decode step that was captured. The graph samples greedily; other rows sample once more."""
        logits, tokens = graphs.run(inputs, size)
        if inputs.sampling is None or inputs.sampling.greedy:
            return self._result(inputs, None, logits, tokens)
        plain = logits.clone() if inputs.logprobs is not None else logits
        tokens = sample(logits, inputs.sampling, self._pool.flat)
        self._pool.scatter(self._upload(inputs.sampled_places)[0], tokens)
        return self._result(inputs, None, plain, tokens)

    def _result(
        self, inputs: StepInputs, hidden: torch.Tensor | None, logits: torch.Tensor, tokens: torch.Tensor
    ) -> StepResult:
        """What goes to the host. ``hidden`` is None for a decode step, which computes no place of a prompt."""
        wanted, logprobs = inputs.logprobs, list[RowTensors]()
        if wanted is not None:
            prompt = logits[:0] if hidden is None else self._model.logits(hidden[wanted.hidden])
            logprobs = row_logprobs(wanted, prompt, logits, tokens)
        pooled = [] if hidden is None else [span.pool(hidden, self._model) for span in inputs.pooled]
        return StepResult(tokens.to(torch.int32).to("cpu", non_blocking=True), logprobs, pooled)
