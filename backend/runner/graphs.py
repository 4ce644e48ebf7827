"""Decode steps as CUDA graphs: one for each of some batch sizes, the whole step from token ids to token ids.

A step of fewer rows than a graph has is padded with rows that read and write page 0 and the spare token.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from backend.attention.base import AttentionBackend, StepLayout
from backend.models.base import CausalLM
from backend.runner.step_inputs import StepInputs
from backend.runner.token_pool import TokenPool
from backend.transfer import Uploader

WARM_UP_RUNS = 2  # libraries choose their kernels and workspaces in the first runs, which cannot be captured


def graph_sizes(largest: int) -> list[int]:
    """Batch sizes worth a graph: all small ones, then in steps of about an eighth of the size."""
    steps = ((1, 8, 1), (8, 32, 4), (32, 64, 8), (64, 256, 16), (256, 512, 32), (512, largest + 1, 64))
    sizes = [size for start, end, step in steps for size in range(start, end, step) if size < largest]
    return [*sizes, largest]


class DecodeGraphs:
    """Captured decode steps. Everything runs on the stream that is current at each call, always the same one."""

    def __init__(
        self,
        model: CausalLM,
        attention: AttentionBackend,
        pool: TokenPool,
        upload: Uploader,
        sizes: Sequence[int],
        *,
        pads: bool = True,
    ) -> None:
        self._model, self._attention, self._pool, self._upload = model, attention, pool, upload
        self._sizes = sorted(sizes)
        self._pads = pads
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        device, largest = pool.flat.device, self._sizes[-1]
        weight = model.lm_head.weight
        self._inputs = torch.zeros(3 * largest, dtype=torch.int64, device=device)  # places, positions, sampled places
        self._logits = torch.empty(largest, model.config.vocab_size, dtype=weight.dtype, device=device)
        self._tokens = torch.empty(largest, dtype=torch.int64, device=device)

    def size_for(self, rows: int) -> int | None:
        """The size of the graph for a step of ``rows``; None when there is none."""
        at = bisect_left(self._sizes, rows)
        if at == len(self._sizes) or not (self._pads or self._sizes[at] == rows):
            return None
        return self._sizes[at]

    @torch.inference_mode()
    def capture(self, *, progress: bool = True) -> None:
        """Capture every size, the largest first: the smaller ones find their memory in its pool."""
        memory = None
        bar = tqdm(self._sizes[::-1], desc="capturing decode graphs", unit="size", disable=not progress, leave=False)
        for size in bar:
            bar.set_postfix(rows=size)
            self._stage(_padding(size, self._pool.spare), size)
            for _ in range(WARM_UP_RUNS):
                self._step(size)
            torch.cuda.current_stream().synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory, stream=torch.cuda.current_stream()):
                self._step(size)
            memory = graph.pool()
            self._graphs[size] = graph

    def run(self, inputs: StepInputs, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Replay the graph of ``size`` rows for a decode step.

        Returns the logits ``[R, vocab]`` and the likeliest tokens (int64[R]), which are in the token pool already; both
        are overwritten by the next replay.
        """
        rows = len(inputs.positions)
        self._stage(inputs if rows == size else _padded(inputs, size, self._pool.spare), size)
        self._graphs[size].replay()
        return self._logits[:rows], self._tokens[:rows]

    def _stage(self, inputs: StepInputs, size: int) -> None:
        """Put a step's inputs where the graph reads them."""
        arrays = (inputs.places, inputs.positions, inputs.sampled_places)
        self._upload.into(self._inputs[: 3 * size], np.concatenate(arrays))
        self._attention.plan_fixed(inputs.layout)

    def _step(self, size: int) -> None:
        places, positions, sampled_places = self._inputs[: 3 * size].view(3, size)
        hidden = self._model(self._pool.gather(places), positions, self._attention)
        logits, tokens = self._logits[:size], self._tokens[:size]
        logits.copy_(self._model.logits(hidden))
        torch.argmax(logits, dim=-1, out=tokens)
        self._pool.scatter(sampled_places, tokens)


def _padding(rows: int, spare: int) -> StepInputs:
    """A step of nothing but padding."""
    spares, zeros = np.full(rows, spare, np.int64), np.zeros(rows, np.int64)
    ones = torch.ones(rows, dtype=torch.int32)
    table = torch.zeros(rows, 1, dtype=torch.int32)
    layout = StepLayout(ones, ones, table, torch.zeros(rows, dtype=torch.int64))
    return StepInputs(spares, zeros, layout, None, spares, None, None)


def _padded(inputs: StepInputs, size: int, spare: int) -> StepInputs:
    """The decode step ``inputs`` with rows of padding behind its own."""
    mine, more = inputs.layout, size - len(inputs.positions)
    padding = _padding(more, spare)
    table = mine.page_table.new_zeros(size, mine.page_table.shape[1])
    table[: size - more] = mine.page_table
    layout = StepLayout(
        query_lens=torch.cat((mine.query_lens, padding.layout.query_lens)),
        kv_lens=torch.cat((mine.kv_lens, padding.layout.kv_lens)),
        page_table=table,
        locations=torch.cat((mine.locations, padding.layout.locations)),
    )
    return StepInputs(
        places=np.concatenate((inputs.places, padding.places)),
        positions=np.concatenate((inputs.positions, padding.positions)),
        layout=layout,
        last=None,
        sampled_places=np.concatenate((inputs.sampled_places, padding.sampled_places)),
        sampling=None,
        logprobs=None,
    )
