"""What captured steps have in common: how they are recorded, and what they end in."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from backend.models.base import CausalLM
from backend.runner.token_pool import TokenPool


class StepEnds:
    """Logits and the likeliest tokens of captured steps, in memory that all of them write: each overwrites the last."""

    def __init__(self, model: CausalLM, pool: TokenPool, max_rows: int) -> None:
        self._model, self._pool = model, pool
        device = pool.flat.device
        dtype = next(model.parameters()).dtype
        self.logits = torch.empty(max_rows, model.config.vocab_size, dtype=dtype, device=device)
        self.tokens = torch.empty(max_rows, dtype=torch.int64, device=device)
        self._keep_and_find = _finder(device)

    def reach(self, hidden: torch.Tensor, sampled_places: torch.Tensor) -> None:
        """From the hidden states ``[R, hidden]`` of the tokens behind which is sampled to the token pool."""
        logits, tokens = self.logits[: len(hidden)], self.tokens[: len(hidden)]
        self._keep_and_find(self._model.logits(hidden), logits, tokens)
        self._pool.scatter(sampled_places, tokens)


class Recorder:
    """Records steps as CUDA graphs whose memory is shared; they run one after the other, on one stream."""

    def __init__(self) -> None:
        self._memory: Any = None  # the handle of a memory pool

    def record(self, step: Callable[[], None], warm_up_runs: int) -> torch.cuda.CUDAGraph:
        """Largest steps first: the smaller ones find their memory in what those took.

        Libraries choose kernels and workspaces in their first runs, which cannot be captured.
        """
        for _ in range(warm_up_runs):
            step()
        stream = torch.cuda.current_stream()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, stream=stream):
            step()
        self._memory = graph.pool()
        return graph


def _finder(device: torch.device) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]:
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from backend.runner.kernels.likeliest import keep_and_find

        return keep_and_find
    return _keep_and_find


def _keep_and_find(logits: torch.Tensor, kept: torch.Tensor, tokens: torch.Tensor) -> None:
    """``logits`` ``[R, vocab]`` to ``kept``, rounded to its dtype, and where each row is largest to ``tokens``."""
    kept.copy_(logits)
    torch.argmax(kept, dim=-1, out=tokens)
