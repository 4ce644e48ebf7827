"""Each attention backend against the same attention in float64, on random steps over pages in random order."""

import importlib.util
import os
import random

import numpy as np
import pytest
import torch

from backend.attention import AttentionShape, attention_class
from backend.attention.base import StepLayout
from backend.cache import KVPool
from backend.runner.decode_rows import Rows, padded_sharing, padding, unshared
from backend.transfer import FixedMemory

BACKENDS = [name for name in ("flashinfer", "triton") if importlib.util.find_spec(name)] + ["torch_native"]
CUDA = torch.device("cuda")
COMPILE_ALL = "WARMLANE_TEST_COMPILE_ALL"
NUM_PAGES_TOKENS = 1 << 15
TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
SHAPES = {
    "group of two": AttentionShape(16, 8, 128, 128**-0.5),
    "group of four": AttentionShape(32, 8, 128, 128**-0.5),
    "small heads, group of eight": AttentionShape(8, 1, 64, 0.1),
    "one head a key head": AttentionShape(4, 4, 64, 64**-0.5),
    "window": AttentionShape(8, 2, 128, 128**-0.5, window=100),
    "capped": AttentionShape(8, 2, 128, 128**-0.5, soft_cap=20.0),
}


class Step:
    """Rows over a pool of random numbers, and what attention must give for them."""

    def __init__(self, seed, shape, rows, page_size, dtype=torch.bfloat16):
        """``rows`` are pairs: tokens in the pool already, and new ones."""
        torch.manual_seed(seed)
        self.shape, self.rows, self.page = shape, rows, page_size
        pages = NUM_PAGES_TOKENS // page_size
        self.pool = KVPool(
            num_layers=1,
            num_pages=pages,
            page_size=page_size,
            kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            dtype=dtype,
            device=CUDA,
        )
        for stored in (*self.pool.keys, *self.pool.values):
            stored.normal_()
        counts = [-(-(old + new) // page_size) for old, new in rows]
        order = np.random.default_rng(seed).permutation(np.arange(1, pages + 1, dtype=np.int32))[: sum(counts)]
        table = np.zeros((len(rows), max(counts)), np.int32)
        for row, (start, count) in enumerate(zip(np.cumsum(counts) - counts, counts, strict=True)):
            table[row, :count] = order[start : start + count]
        self.table = table
        tokens = sum(new for _, new in rows)
        make = lambda heads: torch.randn(tokens, heads, shape.head_dim, dtype=dtype, device=CUDA)  # noqa: E731
        self.query, self.key, self.value = make(shape.num_heads), make(shape.num_kv_heads), make(shape.num_kv_heads)

    @property
    def layout(self):
        at = [(row, position) for row, (old, new) in enumerate(self.rows) for position in range(old, old + new)]
        places = [int(self.table[row, p // self.page]) * self.page + p % self.page for row, p in at]
        return StepLayout(
            query_lens=torch.tensor([new for _, new in self.rows], dtype=torch.int32),
            kv_lens=torch.tensor([old + new for old, new in self.rows], dtype=torch.int32),
            page_table=torch.from_numpy(self.table),
            locations=torch.tensor(places),
        )

    def error(self, out):
        """Relative to the whole result, in the norm."""
        expected = self.expected()
        assert out.shape == expected.shape
        return float((out.double() - expected).norm() / expected.norm())

    def expected(self):
        outs, start = [], 0
        for row, (old, new) in enumerate(self.rows):
            tokens = slice(start, start + new)
            keys, values = (
                torch.cat((self._stored(pool[0], row, old), fresh[tokens])).double()
                for pool, fresh in ((self.pool.keys, self.key), (self.pool.values, self.value))
            )
            outs.append(self._attend(self.query[tokens].double(), keys, values, old))
            start += new
        return torch.cat(outs).flatten(1)

    def _stored(self, pool, row, count):
        positions = np.arange(count)
        places = self.table[row, positions // self.page].astype(np.int64) * self.page + positions % self.page
        return pool.flatten(0, 1)[torch.from_numpy(places).to(CUDA)]

    def _attend(self, query, keys, values, old):
        shape, group = self.shape, self.shape.num_heads // self.shape.num_kv_heads
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", query, keys) * shape.scale
        if shape.soft_cap:
            scores = torch.tanh(scores / shape.soft_cap) * shape.soft_cap
        at = torch.arange(old, old + len(query), device=CUDA)[:, None]
        seen = torch.arange(len(keys), device=CUDA)
        hidden = seen > at
        if shape.window:
            hidden |= seen <= at - shape.window
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), values)


def random_rows(seed):
    """Some rows of one token, then some longer ones, fresh and with a past; sometimes only one kind."""
    r = random.Random(seed)
    singles = [(r.choice((0, 5, 63, 700, 1500)), 1) for _ in range(r.choice((0, 1, 3, 9)))]
    long = [(r.choice((0, 0, 16, 333)), r.randint(2, 300)) for _ in range(r.choice((0, 1, 2, 4)))]
    return singles + long or [(0, 17)]


def make(backend, shape, pool):
    if backend == "flashinfer" and not attention_class(backend).computes([shape]) and COMPILE_ALL not in os.environ:
        pytest.skip(f"FlashInfer compiles for minutes for this shape: set {COMPILE_ALL} to test it")
    try:
        return attention_class(backend)(pool, [shape])
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("backend", BACKENDS)
@torch.inference_mode()
def test_attention_equals_float64(backend, shape, page_size):
    for seed in range(6):
        step = Step(seed, shape, random_rows(seed), page_size)
        attention = make(backend, shape, step.pool)
        attention.plan(step.layout)
        out = attention.attend(0, step.query, step.key, step.value)
        assert step.error(out) < TOLERANCE[step.query.dtype], step.rows


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [SHAPES["group of two"], SHAPES["group of four"]], ids=["two", "four"])
@torch.inference_mode()
def test_a_captured_step_computes_later_steps(backend, shape):
    """One capture; then steps of other lengths, other pages and other numbers through it."""
    steps = [Step(seed, shape, [(length, 1) for length in lengths], 16) for seed, lengths in enumerate(LENGTHS)]
    pool, attention = steps[0].pool, make(backend, shape, steps[0].pool)
    if not attention.captures:
        pytest.skip(f"{backend} does not capture")
    memory = FixedMemory(CUDA)
    attention.reserve(8, 256, memory)
    fixed = [torch.zeros_like(each) for each in (steps[0].query, steps[0].key, steps[0].value)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        attention.plan_fixed(steps[0].layout)
        memory.send()
        attention.attend(0, *fixed)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = attention.attend(0, *fixed)
        for step in steps:
            for mine, theirs in ((pool.keys[0], step.pool.keys[0]), (pool.values[0], step.pool.values[0])):
                mine.copy_(theirs)
            for mine, theirs in zip(fixed, (step.query, step.key, step.value), strict=True):
                mine.copy_(theirs)
            attention.plan_fixed(step.layout)
            memory.send()
            out.fill_(float("nan"))
            graph.replay()
            stream.synchronize()
            assert step.error(out) < TOLERANCE[torch.bfloat16], step.rows


LENGTHS = [[0, 0, 0, 0], [5, 900, 17, 3000], [1, 2, 3, 4], [4000, 15, 16, 17], [2048, 2048, 2048, 2048]]


@pytest.mark.parametrize("shape", [SHAPES["group of two"], SHAPES["group of four"]], ids=["two", "four"])
@pytest.mark.parametrize("backend", BACKENDS)
@torch.inference_mode()
def test_shared_prefixes_are_read_once_and_give_the_same(backend, shape):
    """Two groups with prefixes, rows that share nothing, padding; captured once, with no prefixes at all."""
    step = Step(3, shape, [(1024 + 3 * i, 1) for i in range(11)] + [(1260 - i, 1) for i in range(6)] + [(9, 1)] * 3, 16)
    step.table[:11, :64] = step.table[0, :64]
    step.table[11:17, :78] = step.table[11, :78]
    attention = make(backend, shape, step.pool)
    if not attention.shares:
        pytest.skip(f"{backend} does not share prefixes")
    rows = Rows(*(np.zeros(20, np.int64),) * 3, step.layout)
    memory = FixedMemory(CUDA)
    attention.reserve(32, 512, memory)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        fixed = [torch.zeros(32, *each.shape[1:], dtype=each.dtype, device=CUDA) for each in (step.query, step.key)]
        attention.plan_shared(padding(32, 0).layout, unshared(32))
        memory.send()
        attention.attend(0, fixed[0], fixed[1], fixed[1])
        graph = torch.cuda.CUDAGraph()
        value = torch.zeros_like(fixed[1])
        with torch.cuda.graph(graph, stream=stream):
            out = attention.attend(0, fixed[0], fixed[1], value)
        sharing = attention.find_sharing(rows.layout)
        assert [len(pages) for pages in sharing.pages] == [64, 78, 0]
        order = torch.from_numpy(sharing.order).to(CUDA)
        for target, source in ((fixed[0], step.query), (fixed[1], step.key), (value, step.value)):
            target[:20] = source[order]
        attention.plan_shared(rows.ordered(sharing.order).padded(32, 0).layout, padded_sharing(sharing, 32))
        memory.send()
        out.fill_(float("nan"))
        graph.replay()
        stream.synchronize()
        assert step.error(out[:20][order.argsort()]) < TOLERANCE[torch.bfloat16]
