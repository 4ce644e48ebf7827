"""How far a model's logits in bfloat16 are from those in float32, through each attention backend that can compute it.

The weights are the same rounded numbers on both sides; the float32 side attends with torch. A sequence is computed in
the ways of a scheduler: a prompt in two chunks, then tokens one by one beside a longer row.
"""

from __future__ import annotations

import importlib.util
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from backend.attention import ATTENTION_BACKENDS, attention_class
from backend.attention.base import StepLayout
from backend.cache import KVPool
from backend.loader.model_config import parse_config
from backend.models import CausalLM
from backend.models.build import empty_model
from benchmarks.model_shapes import Shape

PAGE = 16
SPREAD = 0.05  # standard deviation of the weights: logits are of the size of one
LIMIT = 0.03  # of the median token: rounding of activations to 8 bits of mantissa, over three layers
Sequences = list[list[int]]


@dataclass(frozen=True, slots=True)
class Error:
    """Relative to a token's logits, in the norm. With experts ``worst`` is large where a near tie falls otherwise."""

    model: str
    attention: str
    median: float
    worst: float
    agree: float  # share of tokens whose likeliest next token is the same

    @property
    def passed(self) -> bool:
        return self.median < LIMIT


def model_errors(name: str, shape: Shape, device: torch.device, length: int = 230) -> Iterator[Error]:
    """One for each backend that computes the model's layers on ``device``."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    rows = [torch.randint(3, shape["vocab_size"], (n,), generator=generator).tolist() for n in (length, length // 3)]
    exact, rounded = _models(shape, device, generator)
    expected = _logits(exact, "torch_native", rows, device)
    for attention in _computing(rounded, device):
        found = _logits(rounded, attention, rows, device)
        errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
        agree = (found.argmax(-1) == expected.argmax(-1)).float().mean()
        yield Error(name, attention, float(errors.median()), float(errors.max()), float(agree))


def _models(shape: Shape, device: torch.device, generator: torch.Generator) -> tuple[CausalLM, CausalLM]:
    """In float32 and bfloat16, with the same weights: all of them numbers that bfloat16 has."""
    config = parse_config(shape, where=str(shape["model_type"]))
    one_in_norms = 0 if config.model_type.startswith("gemma") else 1  # Gemma's weights are what is added to one
    exact, rounded = (empty_model(config, dtype, device) for dtype in (torch.float32, torch.bfloat16))
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        drawn = torch.randn(one.shape, generator=generator) * SPREAD + (one_in_norms if one.dim() == 1 else 0)
        other.copy_(drawn.bfloat16())
        one.copy_(other)
    return exact.eval(), rounded.eval()


def _computing(model: CausalLM, device: torch.device) -> list[str]:
    """The backends that take the model's layers here; flashinfer only for what it is chosen for by itself.

    On the CPU those are torch's and, under its interpreter (TRITON_INTERPRET=1), Triton's.
    """
    on_cpu = ["triton", "torch_native"] if os.environ.get("TRITON_INTERPRET") == "1" else ["torch_native"]
    names = list(ATTENTION_BACKENDS) if device.type == "cuda" else on_cpu
    installed = [name for name in names if name == "torch_native" or importlib.util.find_spec(name)]
    return [name for name in installed if attention_class(name).computes(model.attention_shapes())]


@torch.inference_mode()
def _logits(model: CausalLM, attention: str, rows: Sequences, device: torch.device) -> torch.Tensor:
    """Float32 ``[tokens, vocab]``, row by row."""
    config, dtype = model.config, next(model.parameters()).dtype
    counts = [-(-len(row) // PAGE) for row in rows]
    pool = KVPool(
        num_layers=config.num_layers,
        num_pages=sum(counts),
        page_size=PAGE,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        dtype=dtype,
        device=device,
        latent=config.latent,
    )
    backend = attention_class(attention)(pool, model.attention_shapes())
    table = torch.zeros(len(rows), max(counts), dtype=torch.int32)
    pages = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).int() + 1
    for row, part in enumerate(pages.split(counts)):
        table[row, : len(part)] = part
    parts: list[list[torch.Tensor]] = [[] for _ in rows]
    for step in _steps([len(row) for row in rows]):
        backend.plan(_layout(step, table))
        ids = torch.tensor([token for row, start, end in step for token in rows[row][start:end]], device=device)
        positions = torch.cat([torch.arange(start, end) for _, start, end in step]).to(device)
        logits = model.logits(model(ids, positions, backend)).float().cpu()
        for (row, _, _), own in zip(step, logits.split([end - start for _, start, end in step]), strict=True):
            parts[row].append(own)
    return torch.cat([torch.cat(part) for part in parts])


def _steps(lengths: list[int]) -> Iterator[list[tuple[int, int, int]]]:
    """(row, start, end) of each step's parts; rows with one token first. The second row decodes beside the first."""
    long, short = lengths
    prompt = short - 6
    yield [(1, 0, prompt // 2)]
    yield [(0, 0, long // 2), (1, prompt // 2, prompt)]
    for i in range(3):
        yield [(1, prompt + i, prompt + i + 1), (0, long // 2 + 20 * i, long // 2 + 20 * (i + 1))]
    for i in range(3, 6):
        yield [(0, long // 2 + 57 + i, long // 2 + 58 + i), (1, prompt + i, prompt + i + 1)]
    yield [(0, long // 2 + 63, long)]


def _layout(step: list[tuple[int, int, int]], table: torch.Tensor) -> StepLayout:
    at = [(row, position) for row, start, end in step for position in range(start, end)]
    return StepLayout(
        query_lens=torch.tensor([end - start for _, start, end in step], dtype=torch.int32),
        kv_lens=torch.tensor([end for _, _, end in step], dtype=torch.int32),
        page_table=table[[row for row, _, _ in step]],
        locations=torch.tensor([int(table[row, p // PAGE]) * PAGE + p % PAGE for row, p in at]),
    )
