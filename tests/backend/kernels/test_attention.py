"""The Triton attention backend against float64, in everything that a model family or a step may ask of it."""

import random
from dataclasses import replace

import pytest
import torch

import backend.attention.triton as triton_backend
from backend.attention.base import AttentionShape, PaddedSize, StepLayout
from backend.attention.triton import TritonAttention
from backend.transfer import FixedMemory
from tests.backend.kernels.paged_rows import PagedRows
from tests.backend.kernels.reference import assert_close

SCALE = 12 if torch.cuda.is_available() else 1  # of the lengths

PLAIN = AttentionShape(4, 2, 64, 0.125)
SHAPES = {
    "gqa": PLAIN,
    "one head a group": AttentionShape(2, 2, 64, 0.125),
    "three heads a group": AttentionShape(6, 2, 64, 0.125),
    "many heads a group": AttentionShape(20, 1, 64, 0.125),
    "head size 16": AttentionShape(4, 2, 16, 0.25),
    "head size 96": AttentionShape(4, 2, 96, 0.1),
    "head size 128": AttentionShape(8, 2, 128, 0.088),
    "head size 256": AttentionShape(2, 1, 256, 0.0625),
    "window": replace(PLAIN, window=11),
    "wide window": replace(PLAIN, window=70),
    "soft cap": replace(PLAIN, soft_cap=3.0, scale=1.0),
    "sinks": replace(PLAIN, has_sinks=True),
    "window, cap and sinks": replace(PLAIN, window=9, soft_cap=5.0, has_sinks=True),
    "latent": AttentionShape(16, 1, 80, 0.1, value_dim=64),
    "latent, many heads": AttentionShape(66, 1, 72, 0.1, value_dim=64),
}


def lengths(kind: str, seed: int = 0) -> tuple[list[int], list[int]]:
    """New tokens and all tokens of some rows."""
    r = random.Random(seed)
    before = [r.randrange(90 * SCALE) for _ in range(4)]
    new = {"decode": [1, 1, 1, 1], "prefill": [13 * SCALE, 37 * SCALE], "mixed": [1, 1, 2, 30 * SCALE]}[kind]
    if kind == "prefill":
        before[0] = 0
    return new, [a + b for a, b in zip(new, before, strict=False)]


def check(rows: PagedRows, tolerance: float | None = None) -> None:
    backend = TritonAttention(rows.pool, [rows.shape])
    backend.plan(rows.layout)
    found = backend.attend(0, rows.query, rows.key, rows.value, rows.sinks)
    assert found.dtype == rows.query.dtype
    assert_close(found, rows.expected(), tolerance)


@pytest.mark.parametrize("kind", ["decode", "prefill", "mixed"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape(name, kind, device):
    check(PagedRows(SHAPES[name], *lengths(kind), page=16, dtype=torch.float32, device=device))


@pytest.mark.parametrize("page", [1, 16, 32, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_dtype_and_page_size(dtype, page, device):
    check(PagedRows(PLAIN, *lengths("mixed", page), page=page, dtype=dtype, device=device))


@pytest.mark.parametrize("name", ["gqa", "latent"])
@pytest.mark.parametrize("pool_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_eight_bit_pools(pool_dtype, name, device):
    rows = PagedRows(
        SHAPES[name], *lengths("mixed"), page=16, dtype=torch.float16, pool_dtype=pool_dtype, device=device
    )
    scales = {"key_scale": 0.5, "value_scale": 0.5 if name == "latent" else 2.0}
    backend = TritonAttention(rows.pool, [rows.shape], **scales)
    backend.plan(rows.layout)
    found = backend.attend(0, rows.query, rows.key, rows.value)
    assert_close(found, rows.expected(**scales), 1e-2)
    stored = rows.stored()[0].double() * scales["key_scale"]
    half_unit = 2.0 ** -(4 if pool_dtype == torch.float8_e4m3fn else 3)
    far = ~torch.isclose(stored, rows.key.cpu().double(), rtol=half_unit, atol=1e-2)
    # The interpreter loses the carry of a rounding that reaches the exponent: one number in 2^bits or so.
    assert far.double().mean() <= (0 if device.type == "cuda" else 0.06)


def test_what_is_stored_is_what_was_given(device):
    rows = PagedRows(PLAIN, *lengths("mixed"), page=16, dtype=torch.bfloat16, device=device)
    before = rows.pool.keys[0].clone()
    backend = TritonAttention(rows.pool, [rows.shape])
    backend.plan(rows.layout)
    backend.attend(0, rows.query, rows.key, rows.value)
    keys, values = rows.stored()
    assert torch.equal(keys, rows.key.cpu())
    assert torch.equal(values, rows.value.cpu())
    untouched = torch.ones(before.shape[:2], dtype=torch.bool).flatten()
    untouched[rows.layout.locations] = False
    changed = ~torch.eq(before.view(torch.int16), rows.pool.keys[0].view(torch.int16))
    assert not changed.flatten(0, 1).cpu()[untouched].any()


def test_layers_of_different_shape_share_a_plan(device):
    rows = PagedRows(PLAIN, *lengths("mixed"), page=16, dtype=torch.float32, device=device)
    rows.pool.keys.append(rows.pool.keys[0].clone())
    rows.pool.values.append(rows.pool.values[0].clone())
    windowed = replace(PLAIN, window=7)
    backend = TritonAttention(rows.pool, [PLAIN, windowed])
    backend.plan(rows.layout)
    whole = backend.attend(0, rows.query, rows.key, rows.value)
    part = backend.attend(1, rows.query, rows.key, rows.value)
    assert_close(whole, rows.expected())
    rows.shape = windowed
    assert_close(part, rows.expected())


class Recorder:
    """Stands in for a kernel: launches it, and keeps the launch as a CUDA graph would, arguments and all."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            self.launches.append(lambda: self.kernel[grid](*args, **kwargs))
            self.kernel[grid](*args, **kwargs)

        return launch


def test_launches_captured_after_a_fixed_plan_compute_the_next_one(device, monkeypatch):
    lens = [5, 90 * SCALE, 40, 150 * SCALE, 1, 17, 61]
    rows = PagedRows(PLAIN, [1] * 7, lens, page=16, dtype=torch.float32, device=device)
    backend = TritonAttention(rows.pool, [PLAIN])
    memory = FixedMemory(torch.device(device))
    backend.reserve(4, rows.layout.page_table.shape[1], memory)
    query, key, value = (x[:4].clone() for x in (rows.query, rows.key, rows.value))
    rows.pool.keys[0][0] = rows.pool.values[0][0] = 0
    backend.plan_fixed(rows.part([0, 1, 2], padding=1))
    memory.send()
    launches: list = []
    for name in ("store_tokens", "decode_parts", "decode_merge"):
        monkeypatch.setattr(triton_backend, name, Recorder(getattr(triton_backend, name), launches))
    out = backend.attend(0, query, key, value)
    for chosen in ([3, 4, 5], [6, 1, 3, 0]):
        backend.plan_fixed(rows.part(chosen, padding=4 - len(chosen)))
        memory.send()
        for buffer, numbers in ((query, rows.query), (key, rows.key), (value, rows.value)):
            buffer[: len(chosen)] = numbers[chosen]
        out.fill_(float("nan"))
        for launch in launches:
            launch()
        assert_close(out[: len(chosen)], rows.expected(chosen))


def padded(rows: PagedRows, chosen: list[int], tokens: int) -> tuple[StepLayout, torch.Tensor]:
    """The step of the ``chosen`` rows and a row of padding behind, and where its tokens are among all."""
    layout, ends = rows.layout, rows.layout.query_lens.cumsum(0)
    at = torch.cat([torch.arange(int(ends[r] - rows.query_lens[r]), int(ends[r])) for r in chosen])
    more = torch.full((int(tokens > len(at)),), tokens - len(at), dtype=torch.int32)
    table = torch.cat((layout.page_table[chosen], torch.zeros(len(more), layout.page_table.shape[1]).int()))
    lens = [torch.cat((x[chosen], more)) for x in (layout.query_lens, layout.kv_lens)]
    return StepLayout(*lens, table, torch.cat((layout.locations[at], torch.zeros(tokens - len(at)).long()))), at


@pytest.mark.parametrize("name", ["gqa", "window, cap and sinks"])
def test_prompts_captured_after_a_padded_plan_compute_the_next_ones(device, monkeypatch, name):
    """Also with rows of one token, and without any; a token of padding; no padding."""
    shape = SHAPES[name]
    new, before = [1, 1, 1, 13, 37, 5], [70 * SCALE, 0, 9, 0, 20 * SCALE, 7]
    rows = PagedRows(shape, new, [a + b for a, b in zip(new, before, strict=True)], page=16, dtype=torch.float32,
                     device=device)  # fmt: skip
    rows.pool.keys[0][0] = rows.pool.values[0][0] = 0
    whole = [rows.query, rows.key, rows.value]
    for size, steps in {
        PaddedSize(52, 4, singles=True): ([3, 4], [1, 3, 4], [0, 1, 2]),
        PaddedSize(43, 2, singles=False): ([3, 5], [4, 5]),
    }.items():
        backend, memory = TritonAttention(rows.pool, [shape]), FixedMemory(torch.device(device))
        backend.reserve_padded(size, rows.layout.page_table.shape[1], memory)
        fixed = [torch.zeros(size.tokens, *x.shape[1:], device=device) for x in whole]
        launches: list = []
        backend.plan_padded(padded(rows, steps[0], size.tokens)[0], size)
        memory.send()
        with monkeypatch.context() as patch:
            for kernel in ("store_tokens", "decode_parts", "decode_merge", "prefill_blocks"):
                patch.setattr(triton_backend, kernel, Recorder(getattr(triton_backend, kernel), launches))
            out = backend.attend(0, *fixed, rows.sinks)
        for chosen in steps:
            layout, at = padded(rows, chosen, size.tokens)
            backend.plan_padded(layout, size)
            memory.send()
            for buffer, numbers in zip(fixed, whole, strict=True):
                buffer[: len(at)] = numbers[at]
            out.fill_(float("nan"))
            for launch in launches:
                launch()
            assert_close(out[: len(at)], rows.expected(chosen))
            assert not out.isnan().any()


def test_a_fixed_plan_needs_room(device):
    rows = PagedRows(PLAIN, [1], [3], page=16, dtype=torch.float32, device=device)
    with pytest.raises(RuntimeError, match=r"reserve\(\) comes before"):
        TritonAttention(rows.pool, [PLAIN]).plan_fixed(rows.layout)
    with pytest.raises(RuntimeError, match=r"reserve_padded\(\) comes before"):
        TritonAttention(rows.pool, [PLAIN]).plan_padded(rows.layout, PaddedSize(1, 1, singles=True))
