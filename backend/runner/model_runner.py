"""One step on the device: gather the tokens, run the model, sample, scatter what was sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import record_function

from backend.attention.base import AttentionBackend
from backend.cache.host_copies import HostCopies
from backend.cache.host_moves import Transfers
from backend.models.base import CausalLM
from backend.runner.captured import Recorder, StepEnds
from backend.runner.compiled import CompiledForward
from backend.runner.device import free_memory
from backend.runner.graphs import DecodeGraphs, Forward
from backend.runner.logprobs import RowTensors, row_logprobs
from backend.runner.passes import DecodePasses
from backend.runner.prompt_graphs import PromptGraphs
from backend.runner.rehearsal import step_of
from backend.runner.sampler import sample
from backend.runner.sampling_plan import SamplingPlanner
from backend.runner.step_inputs import StepInputs, build_inputs
from backend.runner.stream import Pending, step_stream
from backend.runner.token_pool import TokenPool
from backend.scheduler.batch import RowLogprobs, StepBatch
from backend.scheduler.slots import Slots
from backend.transfer import Uploader

T = TypeVar("T")

NO_TOKENS = np.empty(0, np.int64)


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
        self.passes = DecodePasses()
        self.graph_bytes = 0  # what the captured steps hold
        self._decode: Forward = lambda ids, positions: model(ids, positions, attention)
        self._graphs: DecodeGraphs | None = None
        self._prompt_graphs: PromptGraphs | None = None
        self._labels = False
        self._page_size = slots.page_size

    def rehearse(self, tokens: int, longest: int) -> None:
        """Run prompts of ``tokens`` tokens in all, which leave nothing behind; before the first step."""
        inputs = step_of(tokens, longest, self._page_size)
        self._stream.submit(partial(self._run, inputs)).result()

    def compile_decodes(self, largest: int) -> None:
        """Compile decode steps of at most ``largest`` rows, before they are captured. ``ValueError`` where it fails."""
        self._decode = compiled = CompiledForward(self._model, self._attention, largest)
        self.beside_steps(partial(compiled.warm_up, self._device))

    def capture(
        self,
        sizes: Sequence[int],
        max_row_pages: int,
        *,
        prompts: Sequence[int] = (),
        pads: bool = True,
        progress: bool = True,
    ) -> None:
        """Capture decode steps of ``sizes`` rows, and steps with prompts of ``prompts`` tokens, as CUDA graphs.

        The first step has not been launched.
        """
        free = free_memory(self._device)
        with self._stream.current():
            recorder, ends = Recorder(), StepEnds(self._model, self._pool, max(sizes))
            attention, pool = self._attention, self._pool
            if prompts and attention.captures_prompts:
                parts = self._model, attention, pool, ends
                self._prompt_graphs = PromptGraphs(*parts, prompts, max_row_pages, self._page_size)
                self._prompt_graphs.capture(recorder, progress=progress)
            self._graphs = DecodeGraphs(
                self._decode, attention, pool, self._upload, ends, sizes, max_row_pages, pads=pads
            )
            self._graphs.capture(recorder, progress=progress)
        self.graph_bytes = max(free - free_memory(self._device), 0)

    def beside_steps(self, task: Callable[[], T]) -> T:
        """What ``task`` gives, called where steps run, behind those that were launched."""
        return self._stream.submit(task).result()

    def label_steps(self, labels: bool) -> None:
        """Whether steps have names in a profile."""
        self._labels = labels

    def launch(self, batch: StepBatch, slots: Slots) -> RunningStep:
        """Start computing ``batch``; ``slots`` is not read after the call."""
        with self._stream.current():
            self._pool.upload(slots, batch.fresh)
            inputs = build_inputs(batch, slots, self._planner, self._device)
        run = self._labelled if self._labels else self._run
        return RunningStep(batch.samples, self._stream.submit(partial(run, inputs, batch.transfers)))

    def _labelled(self, inputs: StepInputs, transfers: Transfers | None) -> StepResult:
        with record_function(f"step of {len(inputs.layout.query_lens)} rows, {len(inputs.positions)} tokens"):
            return self._run(inputs, transfers)

    @torch.inference_mode()
    def _run(self, inputs: StepInputs, transfers: Transfers | None = None) -> StepResult:
        if self._copies is not None and transfers is not None:
            self._copies.start(transfers)
        captured = self._replayed(inputs)
        if captured is not None:
            return self._sampled_again(inputs, *captured)
        self._attention.plan(inputs.layout)
        hidden, ends, sampled_places = self._forward(inputs)
        logits = self._model.logits(ends)
        if inputs.sampling is None:
            return self._result(inputs, hidden, logits, sampled_places.new_empty(0))
        plain = logits.clone() if inputs.logprobs is not None else logits  # sampling may change them in place
        tokens = sample(logits, inputs.sampling, self._pool.flat)
        self._pool.scatter(sampled_places, tokens)
        return self._result(inputs, hidden, plain, tokens)

    def _forward(self, inputs: StepInputs) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Hidden states of all tokens where those are wanted, of the sampling ones, and where the samples go."""
        last = NO_TOKENS if inputs.last is None else inputs.last
        places, positions, sampled_places, kept = self._upload(
            inputs.places, inputs.positions, inputs.sampled_places, last
        )
        ids = self._pool.gather(places)
        if inputs.last is None or inputs.wants_prompt:
            decodes = inputs.is_decode
            hidden = self._decode(ids, positions) if decodes else self._model(ids, positions, self._attention)
            return hidden, hidden if inputs.last is None else hidden[kept], sampled_places
        some = kept if len(last) else torch.zeros_like(positions[:1])  # kernels take at least one row
        return None, self._model(ids, positions, self._attention, some)[: len(last)], sampled_places

    def _replayed(self, inputs: StepInputs) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Logits and likeliest tokens of the sampling rows, of a step that was captured; None: it was not."""
        if not inputs.is_decode:
            prompts = self._prompt_graphs
            padded = None if prompts is None else prompts.size_for(inputs)
            return None if prompts is None or padded is None else prompts.run(inputs, padded)
        graphs = self._graphs
        size = None if graphs is None else graphs.size_for(len(inputs.positions))
        self.passes.count(graph=size is not None)
        return None if graphs is None or size is None else graphs.run(inputs, size)

    def _sampled_again(self, inputs: StepInputs, logits: torch.Tensor, tokens: torch.Tensor) -> StepResult:
        """The result of a captured step. The graph samples greedily; other rows sample once more."""
        if inputs.sampling is None or inputs.sampling.greedy:
            return self._result(inputs, None, logits, tokens)
        plain = logits.clone() if inputs.logprobs is not None else logits
        tokens = sample(logits, inputs.sampling, self._pool.flat)
        self._pool.scatter(self._upload(inputs.sampled_places)[0], tokens)
        return self._result(inputs, None, plain, tokens)

    def _result(
        self, inputs: StepInputs, hidden: torch.Tensor | None, logits: torch.Tensor, tokens: torch.Tensor
    ) -> StepResult:
        """What goes to the host. ``hidden`` is None for a step of which no place of a prompt is wanted."""
        wanted, logprobs = inputs.logprobs, list[RowTensors]()
        if wanted is not None:
            states = logits[:0] if hidden is None else hidden
            logprobs = row_logprobs(wanted, lambda at: self._model.logits(states[at]), logits, tokens)
        pooled = [] if hidden is None else [span.pool(hidden, self._model) for span in inputs.pooled]
        return StepResult(tokens.to(torch.int32).to("cpu", non_blocking=True), logprobs, pooled)
