"""What layers do between matrix products: our kernels, and torch's operations as well, against float64."""

import random

import pytest
import torch

from backend.attention.base import KVTarget
from backend.layers.norm import OffsetRMSNorm, RMSNorm
from backend.layers.ops import TORCH_OPS, triton_ops
from backend.layers.rotary import RotaryTables
from tests.backend.kernels.reference import assert_close

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
OPS = {"triton": triton_ops(), "torch": TORCH_OPS}
LARGE = torch.cuda.is_available()


def normal(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def rms_norm(x, weight, eps, offset):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * (weight + (1 if offset else 0))


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("offset", [False, True])
def test_norms_of_random_sizes(offset, adds, dtype, ops, device):
    r = random.Random(f"{offset}{adds}{dtype}")
    for seed in range(3):
        rows, size = r.randrange(1, 4096 if LARGE else 6), r.choice([r.randrange(1, 300), 64, 2880, 4096])
        x, delta, weight = (normal(rows, size, seed=seed + i).to(device, dtype) for i in range(3))
        weight = weight[0].clone()
        before = x.double().cpu()
        total = (x + delta).double().cpu() if adds else before
        out = OPS[ops].rms_norm(x, weight, 1e-5, offset=offset, delta=delta if adds else None)
        assert_close(out, rms_norm(total, weight.double().cpu(), 1e-5, offset))
        assert_close(x, total, 0.0 if LARGE or not adds else None)


@pytest.mark.parametrize("ops", OPS)
def test_a_norm_of_a_slice(ops, device):
    """As latent attention has it: the front of wider rows, and a dimension of heads between."""
    whole, weight = normal(5, 1, 48).to(device), normal(32).to(device)
    out = OPS[ops].rms_norm(whole[..., :32], weight, 1e-6, offset=False, delta=None)
    assert out.shape == (5, 1, 32)
    assert_close(out, rms_norm(whole[..., :32].double().cpu(), weight.double().cpu(), 1e-6, False))


ACTIVATIONS = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_pytorch_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
}


@pytest.mark.parametrize("ops", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gates(act, dtype, ops, device):
    for rows, size in ((3, 17), (1, 1025), (4096 if LARGE else 2, 256)):
        x = (normal(rows, 2 * size) * 3).to(device, dtype)
        gate, up = x.double().cpu().chunk(2, dim=-1)
        assert_close(OPS[ops].gate(act)(x), ACTIVATIONS[act](gate) * up)


@pytest.mark.parametrize("ops", OPS)
def test_an_unknown_activation_is_refused(ops):
    with pytest.raises(ValueError, match="hidden_act 'swish2' is not supported; known: silu"):
        OPS[ops].gate("swish2")


def turned(x, cos, sin):
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, x[..., 2 * half :]), dim=-1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [None, RMSNorm, OffsetRMSNorm])
@pytest.mark.parametrize(("heads", "kv_heads", "size", "rotated"), [(4, 2, 64, 64), (3, 1, 96, 72), (16, 8, 128, 128)])
def test_rotate_and_store(heads, kv_heads, size, rotated, norm, dtype, device):
    tokens, page = 2000 if LARGE else 5, 16
    slots = tokens + 3 * page - tokens % page
    projected = normal(tokens, heads + 2 * kv_heads, size).to(device, dtype)
    angles = normal(tokens, 1, rotated // 2, seed=1) * 3
    rotary = RotaryTables(angles.cos().to(device, dtype), angles.sin().to(device, dtype))
    locations = torch.randperm(slots, generator=torch.Generator().manual_seed(2))[:tokens]
    pools = [torch.full((slots // page, page, kv_heads, size), float("nan"), dtype=dtype, device=device) for _ in "kv"]
    norms = None
    expected = projected.double().cpu()
    value = expected[:, heads + kv_heads :]
    expected = expected[:, : heads + kv_heads]
    if norm is not None:
        norms = norm(size, 1e-6).to(device, dtype), norm(size, 1e-6).to(device, dtype)
        for i, each in enumerate(norms):
            each.weight.copy_(normal(size, seed=3 + i))
        parts = zip(norms, expected.split((heads, kv_heads), dim=1), strict=True)
        expected = torch.cat([rms_norm(x, n.weight.double().cpu(), n.eps, n.offset) for n, x in parts], dim=1)
    expected = turned(expected, rotary.cos.double().cpu(), rotary.sin.double().cpu())

    out = triton_ops().rotate_and_store(projected, rotary, KVTarget(*pools, locations.to(device)), norms)

    assert_close(out, expected)
    keys, values = (pool.cpu().flatten(0, 1) for pool in pools)
    assert torch.equal(keys[locations], out[:, heads:].cpu())
    assert torch.equal(values[locations].double(), value)
    others = torch.ones(slots, dtype=torch.bool)
    others[locations] = False
    assert keys[others].isnan().all()
    assert values[others].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("biased", [False, True])
def test_products_with_few_rows_are_those_with_many(biased, dtype, device):
    r = random.Random(f"{biased}{dtype}")
    for seed in range(8):
        rows, features, size = r.randrange(1, 7), r.randrange(1, 200), r.choice([r.randrange(1, 1300), 64, 1024])
        x, weight = (
            normal(rows, size + 3, seed=seed)[:, :size].to(device, dtype),
            normal(features, size).to(device, dtype),
        )
        bias = normal(features).to(device, dtype) if biased else None
        expected = x.double().cpu() @ weight.double().cpu().T + (0 if bias is None else bias.double().cpu())
        assert_close(triton_ops().linear(x, weight, bias), expected)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_rotate_and_store_in_eight_bits(dtype, device):
    tokens, heads, kv_heads, size = 4, 4, 2, 64
    projected = normal(tokens, heads + 2 * kv_heads, size).to(device)
    angles = normal(tokens, 1, size // 2, seed=1).to(device)
    pools = [torch.zeros(tokens, 1, kv_heads, size, dtype=dtype, device=device) for _ in "kv"]
    target = KVTarget(*pools, torch.arange(tokens, device=device), key_scale=0.5, value_scale=2.0)
    out = triton_ops().rotate_and_store(projected, RotaryTables(angles.cos(), angles.sin()), target, None)
    keys, values = (pool.cpu().double().flatten(0, 1) for pool in pools)
    # A rounded number is off by half a unit at most; the interpreter loses a carry now and then: half of the number.
    assert_close(keys * 0.5, out[:, heads:].double().cpu(), 0.08 if LARGE else 0.3)
    assert_close(values * 2.0, projected[:, heads + kv_heads :].double().cpu(), 0.08 if LARGE else 0.3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_latent_keys_and_the_ends_of_queries(interleaved, dtype, device):
    """The queries' parts stand in wider rows, as they are projected; the front of the queries stays."""
    tokens, heads, latent, rotated = 3, 5, 40, 24
    make = lambda *size, seed: normal(*size, seed=seed).to(device, dtype)  # noqa: E731
    turned, projected = make(tokens, heads, 16 + rotated, seed=1)[..., 16:], make(tokens, latent + rotated, seed=2)
    tables = RotaryTables(make(tokens, 1, rotated // 2, seed=3), make(tokens, 1, rotated // 2, seed=4))
    norm = RMSNorm(latent, 1e-6).to(device, dtype)
    norm.weight.data = make(latent, seed=5)
    found, expected = [], []
    for ops, results, as_dtype in ((triton_ops(), found, dtype), (TORCH_OPS, expected, torch.float64)):
        query = torch.ones(tokens, heads, latent + rotated, dtype=as_dtype, device=device)
        wide = RotaryTables(tables.cos.to(as_dtype), tables.sin.to(as_dtype))
        key = ops.latent_key(
            turned.to(as_dtype), projected.to(as_dtype), norm.to(as_dtype), wide, query, interleaved=interleaved
        )
        results += [query, key]
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs.cpu())
