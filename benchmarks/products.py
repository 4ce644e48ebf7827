"""CPU time of the matrix products of a step of SmolLM2-135M, by how the weights are kept; one thread.

    python -m benchmarks.products [--rows 1 4 16 64 512] [--rounds 9]

``plain`` is what torch does without preparation, ``packed`` what the runtime does (``backend.layers.packed``).
The others are what it could do for few rows: a copy in float16 for FBGEMM, and blocks of 32 weights in four bits with a
scale and a zero. The kinds take turns, and the least time of each counts: what else runs on the machine only adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from backend.layers import Linear
from backend.layers.packed import pack_linears

LAYERS = 30
SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))  # queries, keys and values; output; gate and up; down
GROUP = 32  # weights of a block
INNER_TILES = 1


class Kind(NamedTuple):
    """How weights are kept, and the product with them."""

    prepare: Callable[[torch.Tensor], Any]
    product: Callable[[torch.Tensor, Any], torch.Tensor]


def packed(weight: torch.Tensor) -> Linear:
    linear = Linear(weight.shape[1], weight.shape[0]).to(torch.bfloat16)
    linear.weight.copy_(weight)
    pack_linears(linear)
    return linear


def four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Random weights in the shape of ``weight``: only the time counts."""
    numbers = torch.randint(0, 16, weight.shape, dtype=torch.int32)
    scales = torch.randn(weight.shape[1] // GROUP, weight.shape[0], 2, dtype=torch.bfloat16)
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, INNER_TILES), scales


KINDS = {
    "plain": Kind(lambda weight: weight, F.linear),
    "packed": Kind(packed, lambda x, linear: linear(x)),
    "float16": Kind(
        lambda weight: torch.ops.quantized.linear_prepack_fp16(weight.float(), None),
        lambda x, weight: torch.ops.quantized.linear_dynamic_fp16(x.float(), weight).to(x.dtype),
    ),
    "4 bits": Kind(four_bits, lambda x, kept: torch.ops.aten._weight_int4pack_mm_for_cpu(x, kept[0], GROUP, kept[1])),
}


@torch.inference_mode()
def measure(rows: int, rounds: int) -> dict[str, float]:
    """Milliseconds of one step's products, by kind."""
    weights = [torch.randn(shape, dtype=torch.bfloat16) * 0.05 for _ in range(LAYERS) for shape in SHAPES]
    inputs = {size: torch.randn(rows, size, dtype=torch.bfloat16) for _, size in SHAPES}
    kept = {
        name: [(kind.prepare(weight), inputs[weight.shape[1]]) for weight in weights] for name, kind in KINDS.items()
    }
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for _ in range(rounds):
        for name, kind in KINDS.items():
            began = time.thread_time()
            for weight, x in kept[name]:
                kind.product(x, weight)
            times[name].append(time.thread_time() - began)
    return {name: min(found) * 1000 for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 512])
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"ms of CPU{'':<4}" + "".join(f"{name:>10}" for name in KINDS))
    for rows in args.rows:
        print(f"{rows:>4} rows{'':<4}" + "".join(f"{value:>10.1f}" for value in measure(rows, args.rounds).values()))


if __name__ == "__main__":
    main()
