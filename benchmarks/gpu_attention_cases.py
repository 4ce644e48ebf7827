"""The attention cases of ``benchmarks.gpu_kernels``: one call on random inputs each, and the least work that it is."""

from __future__ import annotations

import importlib.util
from functools import partial

import torch

from backend.attention import attention_class
from backend.attention.base import AttentionShape, StepLayout
from backend.cache.kv_pool import KVPool
from backend.transfer import FixedMemory
from benchmarks.gpu_case import Case, Cases

PAGE = 16
DTYPE = torch.bfloat16
QWEN3_06B = AttentionShape(16, 8, 128, 128**-0.5)
LLAMA31_8B = AttentionShape(32, 8, 128, 128**-0.5)
MODELS = {"Qwen3-0.6B": QWEN3_06B, "Llama-3.1-8B": LLAMA31_8B}


def decode(device: torch.device) -> Cases:
    """One new token a row; ``spread`` has rows from short to long."""
    large = device.type == "cuda"
    works = {
        "64 x 1,024": [1024] * 64,
        "16 x 8,192": [8192] * 16,
        "1 x 1,024": [1024],
        "1 x 32,768": [32768],
        "256 x 16..2,048": [16 + 8 * i for i in range(255)],
    }
    for model, shape in MODELS.items() if large else [("tiny", AttentionShape(4, 2, 16, 0.25))]:
        for name, lens in works.items() if large else [("2 x 40", [40, 40])]:
            for kernel in kernels():
                yield partial(attention_case, f"decode {model} {name}", kernel, shape, [1] * len(lens), lens, device)


def prefill(device: torch.device) -> Cases:
    """Fresh prompts, and short questions behind a long prefix."""
    large = device.type == "cuda"
    works = {"16 x 4,096": ([4096] * 16, [4096] * 16), "16 x 128 after 4,096": ([128] * 16, [4224] * 16)}
    for model, shape in MODELS.items() if large else [("tiny", AttentionShape(4, 2, 16, 0.25))]:
        for name, (new, lens) in works.items() if large else [("2 x 20", ([20, 9], [20, 30]))]:
            for kernel in kernels():
                yield partial(attention_case, f"prefill {model} {name}", kernel, shape, new, lens, device)


def kernels() -> list[str]:
    """The attention backends that are installed, ours first."""
    return ["triton", *(["flashinfer"] if importlib.util.find_spec("flashinfer") else []), "torch_native"]


def attention_case(
    work: str, kernel: str, shape: AttentionShape, new: list[int], lens: list[int], device: torch.device
) -> Case:
    """``attend`` of one layer: storing the new keys and values is part of it."""
    pages = [-(-length // PAGE) for length in lens]
    order = torch.randperm(sum(pages)).add_(1).int().split(pages)
    table = torch.nn.utils.rnn.pad_sequence(list(order), batch_first=True)
    pool = KVPool(
        num_layers=1,
        num_pages=sum(pages),
        page_size=PAGE,
        kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        dtype=DTYPE,
        device=device,
    )
    pool.keys[0].normal_()
    pool.values[0].normal_()
    at = [torch.arange(length - count, length) for count, length in zip(new, lens, strict=True)]
    locations = torch.cat([mine[p // PAGE].long() * PAGE + p % PAGE for mine, p in zip(order, at, strict=True)])
    layout = StepLayout(torch.tensor(new, dtype=torch.int32), torch.tensor(lens, dtype=torch.int32), table, locations)
    heads, kv_heads, size = shape.num_heads, shape.num_kv_heads, shape.head_dim
    tensors = torch.randn(sum(new), heads + 2 * kv_heads, size, device=device, dtype=DTYPE).split(
        (heads, kv_heads, kv_heads), dim=1
    )
    tensors = tuple(tensor.contiguous() for tensor in tensors)
    backend = attention_class(kernel)(pool, [shape])
    fixed = backend.captures and all(count == 1 for count in new) and device.type == "cuda"
    memory = FixedMemory(device)
    if fixed:
        backend.reserve(len(new), table.shape[1], memory)
    (backend.plan_fixed if fixed else backend.plan)(layout)
    memory.send()
    seen = sum(sum(range(length - count + 1, length + 1)) for count, length in zip(new, lens, strict=True))
    per_token = 2 * kv_heads * size * DTYPE.itemsize
    return Case(
        work,
        kernel,
        lambda: backend.attend(0, *tensors),
        moved=sum(lens) * per_token + 2 * sum(new) * (heads + kv_heads) * size * DTYPE.itemsize,
        operations=4 * heads * size * seen,
        captures=fixed,
    )
