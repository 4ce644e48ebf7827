"""Which tiles suit the products of a mixture of experts: each kernel alone, by the number of tokens.

    python -m benchmarks.gpu_experts [--shapes qwen3-30b-a3b deepseek-v2-lite] [--tokens 1 64 256] [--json FILE]

Times are medians of graph replays with other experts in each launch, bfloat16 and evenly spread choices. The share is
that of the memory's bandwidth, every matrix that is needed read once. Without a GPU it runs small shapes under Triton's
interpreter (TRITON_INTERPRET=1), to show that it runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

from backend.layers.experts import ExpertWeights
from backend.layers.kernels import experts, few_experts
from backend.layers.kernels.expert_lists import arranged
from backend.layers.kernels.experts import Tile, Tiles
from backend.layers.kernels.few_experts import Cut
from benchmarks.gpu_timing import seconds

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
SHAPES = {"qwen3-30b-a3b": (128, 768, 2048, 8), "deepseek-v2-lite": (64, 1408, 2048, 6)}  # experts, size, hidden, top_k
DRY = (4, 32, 32, 2)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 8192)
SETS = 8  # of choices
BANDWIDTH = 4.3e12  # bytes a second, of copies on an H200

CUTS = [
    Cut(*c) for c in ((1, 2048, 4), (2, 1024, 4), (2, 2048, 4), (4, 512, 4), (4, 1024, 4), (1, 1024, 2), (2, 1024, 2))
]
CUTS += [Cut(*c) for c in ((1, 2048, 8), (2, 2048, 8), (4, 1024, 8), (8, 512, 8))]
OUT_CUTS = [
    Cut(*c) for c in ((1, 256, 4), (2, 256, 4), (4, 256, 4), (1, 512, 4), (2, 512, 4), (1, 1024, 4), (2, 1024, 8))
]
OUT_CUTS += [Cut(*c) for c in ((4, 256, 8), (4, 512, 8), (2, 256, 2), (1, 256, 2), (4, 128, 4))]
GATE_TILES = {  # by pairs in a block
    16: ((32, 128, 4, 4), (32, 256, 4, 3), (64, 128, 4, 3), (64, 128, 4, 4), (64, 64, 4, 4), (64, 64, 4, 5))
    + ((64, 256, 4, 2), (128, 64, 4, 4), (128, 128, 4, 2), (128, 128, 8, 3), (64, 128, 8, 3)),
    32: ((64, 64, 4, 4), (64, 128, 4, 3), (64, 128, 8, 3), (128, 64, 8, 3), (128, 128, 8, 2), (32, 128, 4, 4)),
    64: ((64, 64, 4, 3), (64, 64, 4, 4), (64, 128, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 64, 8, 4)),
    128: ((64, 64, 8, 3), (64, 64, 8, 4), (64, 64, 4, 4), (128, 64, 8, 3), (128, 64, 8, 4)),
}
OUT_TILES = {
    16: ((64, 128, 4, 3), (64, 128, 4, 5), (128, 64, 4, 4), (128, 128, 4, 3), (128, 128, 8, 3), (64, 256, 4, 3))
    + ((128, 256, 4, 2), (256, 64, 8, 3), (256, 128, 8, 2), (32, 256, 4, 4)),
    32: ((128, 64, 4, 4), (128, 128, 4, 3), (128, 128, 8, 3), (256, 64, 8, 3), (256, 128, 8, 2), (64, 128, 4, 4)),
    64: ((128, 64, 4, 3), (128, 64, 4, 4), (128, 128, 8, 3), (256, 64, 8, 3), (256, 64, 8, 4), (256, 64, 4, 3)),
    128: ((128, 64, 8, 3), (128, 64, 8, 4), (128, 64, 4, 4), (256, 64, 8, 3), (256, 64, 8, 4)),
}
BLOCKS = {16: (1, 512), 32: (128, 1024), 64: (256, 2048), 128: (512, 1 << 20)}  # tried from .. to tokens
FEWEST_GROUPED, MOST_ALONE = 4, 16


class Trial(NamedTuple):
    """One kernel with one way to cut it."""

    kind: str
    cut: tuple[int, ...]
    call: Callable[[int], object]  # with one of the sets of choices
    bytes: float


class Case:
    """A layer and choices for ``tokens``."""

    def __init__(self, of: ExpertWeights, tokens: int, top_k: int) -> None:
        self.of, self.top_k = of, top_k
        count, hidden, size = of.down.shape
        self.x = torch.randn(tokens, hidden, dtype=of.down.dtype, device=DEVICE)
        choices = [torch.rand(tokens, count, device=DEVICE).topk(top_k) for _ in range(SETS)]
        self.weights = [choice.values.softmax(-1) for choice in choices]
        self.ids = [choice.indices.int() for choice in choices]
        self.inner = torch.randn(tokens * top_k, size, dtype=of.down.dtype, device=DEVICE)
        chosen = sum(len(ids.unique()) for ids in self.ids) / SETS
        self.matrix = chosen * hidden * size * of.down.itemsize

    def trials(self) -> Iterator[Trial]:
        tokens = len(self.x)
        if tokens <= MOST_ALONE:
            yield from (Trial("pair_gates", cut, partial(self._gates, cut), 2 * self.matrix) for cut in CUTS)
            yield from (Trial("token_outputs", cut, partial(self._outputs, cut), self.matrix) for cut in OUT_CUTS)
        for m, (least, most) in BLOCKS.items():
            if tokens >= FEWEST_GROUPED and least <= tokens <= most:
                yield from self._grouped(m)

    def _gates(self, cut: Cut, turn: int) -> object:
        return few_experts.gates(self.x, self.ids[turn], self.of, cut)

    def _outputs(self, cut: Cut, turn: int) -> object:
        return few_experts.outputs(self.inner, self.weights[turn], self.ids[turn], self.of, cut)

    def _grouped(self, m: int) -> Iterator[Trial]:
        lists = [arranged(ids, len(self.of.down), m) for ids in self.ids]
        yield Trial("arrange", (m,), lambda turn: arranged(self.ids[turn], len(self.of.down), m), 1)
        for cut in GATE_TILES[m]:
            tiles = Tiles(m, Tile(*cut), Tile(*cut))
            call = lambda turn, tiles=tiles: experts.gates(self.x, self.of, lists[turn], self.top_k, tiles)  # noqa: E731
            yield Trial("expert_gates", (m, *cut), call, 2 * self.matrix)
        for cut in OUT_TILES[m]:
            tiles = Tiles(m, Tile(*cut), Tile(*cut))
            call = lambda turn, tiles=tiles: experts.products(self.inner, self.of, lists[turn], tiles)  # noqa: E731
            yield Trial("expert_outputs", (m, *cut), call, self.matrix)


def layer(shape: tuple[int, int, int, int]) -> ExpertWeights:
    count, size, hidden, _ = shape
    make = partial(torch.randn, dtype=torch.bfloat16, device=DEVICE)
    return ExpertWeights(make(count, 2 * size, hidden) / hidden**0.5, make(count, hidden, size) / size**0.5, "silu")


def compile_some(part: int, parts: int, tokens: list[int]) -> None:
    """Into Triton's cache on disk: every ``parts``-th kernel."""
    small = layer(SHAPES["qwen3-30b-a3b"][:1] + (256, 256, 8) if ON_GPU else DRY)
    trials = itertools.chain.from_iterable(Case(small, count, 8 if ON_GPU else 2).trials() for count in tokens)
    seen = set()
    for number, trial in enumerate(trials):
        if (trial.kind, trial.cut) not in seen and number % parts == part:
            seen.add((trial.kind, trial.cut))
            _attempt(trial)


def _attempt(trial: Trial) -> float | str:
    turns = itertools.cycle(range(SETS))
    try:
        return seconds(lambda: trial.call(next(turns)))
    except Exception as error:  # a tile that does not fit is a result
        return repr(error)[:80]


def measured(name: str, tokens: list[int]) -> Iterator[dict[str, Any]]:
    shape = SHAPES[name] if ON_GPU else DRY
    of = layer(shape)
    for count in tokens:
        for trial in Case(of, count, shape[3]).trials():
            took = _attempt(trial)
            line = {"shape": name, "tokens": count, "kernel": trial.kind, "cut": trial.cut}
            if isinstance(took, str):
                yield line | {"failed": took}
            else:
                yield line | {"us": round(took * 1e6, 1), "share": round(trial.bytes / BANDWIDTH / took, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS) if ON_GPU else [1, 8])
    parser.add_argument("--processes", type=int, default=12 if ON_GPU else 0, help="that compile beforehand")
    parser.add_argument("--best", type=int, default=4, help="lines of each kernel")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.processes:
        kinds = [1, 128, 256, 512]
        with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
            list(pool.map(partial(compile_some, parts=args.processes, tokens=kinds), range(args.processes)))
    found = []
    for name in args.shapes:
        for key, lines in itertools.groupby(measured(name, args.tokens), lambda line: (line["tokens"], line["kernel"])):
            group = sorted(lines, key=lambda line: line.get("us", 1e9))
            found += group
            best = "  ".join(
                f"{line['cut']} {line['us']} ({line['share']})" for line in group[: args.best] if "us" in line
            )
            print(name, *key, best, flush=True)
    if args.json:
        args.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
