"""What the machine offers: device, number format, threads, and room for keys and values."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from backend.config import ServerArgs

CPU_KV_SHARE = 0.2  # of the memory available, without --mem-fraction-static
CPU_KV_MAX_BYTES = 2 << 30
GPU_STATIC_SHARE = 0.88  # weights and KV together, of the whole GPU memory, where steps were not measured
GPU_SPARE_SHARE = 0.06  # left where they were: draws, log probabilities of prompts, and gaps between allocations

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KV_DTYPES = {"fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
DTYPES |= {"float": torch.float32, "half": torch.float16}


def choose_device(name: str) -> torch.device:
    """``ValueError`` when CUDA is asked for and not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: no CUDA device is visible to torch; use --device cpu")
    return torch.device(name)


def choose_dtype(name: str, declared: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in. Auto: the declared one, bfloat16 on CPUs with native bfloat16, else float32 there."""
    if name != "auto":
        if name not in DTYPES:
            raise ValueError(f"--dtype {name!r} is unknown; known: auto, {', '.join(DTYPES)}")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if declared == "float32" else DTYPES.get(declared, torch.bfloat16)
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def choose_kv_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype to store keys and values in, for a model that computes in ``dtype``."""
    if name == "auto":
        return dtype
    if name not in KV_DTYPES:
        raise ValueError(f"--kv-cache-dtype {name!r} is unknown; known: auto, {', '.join(KV_DTYPES)}")
    return KV_DTYPES[name]


def cpu_has_bfloat16() -> bool:
    """Whether matrix products in bfloat16 are native (AVX512-BF16, AMX or Arm BF16), so that they save time."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def set_threads(threads: int | None) -> int:
    """Use ``threads`` CPU threads, or one per core that this process may use. Returns the number."""
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(count)
    return count


def kv_room(
    args: ServerArgs,
    device: torch.device,
    bytes_per_token: int,
    context_length: int,
    rows: int,
    steps: int | None = None,
) -> int:
    """KV room in tokens when the user gave none. ``ValueError`` when not even a small request fits."""
    budget = kv_budget(args, device, steps=steps)
    tokens = min(budget // bytes_per_token, rows * context_length)
    if tokens < 16:
        raise ValueError(
            f"not enough memory for keys and values: {max(budget, 0) >> 20} MiB left, {bytes_per_token} bytes a token; "
            "free memory, raise --mem-fraction-static, or choose a smaller model"
        )
    return tokens


def kv_budget(args: ServerArgs, device: torch.device, *, reserved: int = 0, steps: int | None = None) -> int:
    """Bytes for keys and values when the user gave no number; ``reserved`` bytes of weights are still to come.

    On a GPU ``steps`` are the bytes that steps and graphs were seen to take; None: they were not measured.
    """
    available = free_memory(device) - reserved
    share = args.mem_fraction_static
    if device.type == "cuda":
        total = torch.cuda.mem_get_info(device)[1]
        within_share = available - int(total * (1 - (share or GPU_STATIC_SHARE)))
        if steps is None:
            return within_share
        left = available - steps - int(total * GPU_SPARE_SHARE)
        return min(left, within_share) if share else left
    return int(available * share) if share else min(int(available * CPU_KV_SHARE), CPU_KV_MAX_BYTES)


def free_memory(device: torch.device) -> int:
    """Bytes that can be taken, on the CPU without swapping."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
