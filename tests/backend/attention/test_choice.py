"""Which attention backend is chosen, and what is said when one cannot be."""

from types import SimpleNamespace

import pytest
import torch

import backend.attention as attention
from backend.attention import AttentionShape, attention_class, make_attention, require_pool
from backend.attention.torch_sdpa import TorchSDPA
from backend.cache import KVPool
from backend.config import ServerArgs

SHAPE = AttentionShape(4, 2, 8, 1.0)


class HalfOnly(TorchSDPA):
    float32_pools = False

    @classmethod
    def computes(cls, shapes):
        return all(shape.window is None for shape in shapes)


class Anything(TorchSDPA):
    eight_bit_pools = True


def pool(dtype=torch.float32):
    return KVPool(
        num_layers=1, num_pages=2, page_size=4, kv_heads=2, head_dim=8, dtype=dtype, device=torch.device("cpu")
    )


def test_the_cpu_has_torch():
    assert type(make_attention(ServerArgs(), pool(), [SHAPE])) is TorchSDPA


@pytest.mark.parametrize(
    ("dtype", "window", "expected"),
    [
        (torch.bfloat16, None, HalfOnly),
        (torch.bfloat16, 5, Anything),
        (torch.float32, None, Anything),
        (torch.float8_e4m3fn, None, Anything),
    ],
)
def test_auto_takes_the_first_that_computes_the_model(monkeypatch, dtype, window, expected):
    kinds = {"first": HalfOnly, "second": Anything, "torch_native": TorchSDPA}
    monkeypatch.setattr(attention, "attention_class", kinds.__getitem__)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None if name == "absent" else name)
    gpu = SimpleNamespace(keys=[SimpleNamespace(device=torch.device("cuda"), dtype=dtype)])
    shape = AttentionShape(4, 2, 8, 1.0, window=window)
    assert attention._kind("auto", ("absent", "first", "second", "torch_native"), gpu, [shape]) is expected


def test_a_backend_that_does_not_compute_in_the_dtype_says_so():
    with pytest.raises(ValueError, match="HalfOnly does not compute in float32"):
        require_pool(HalfOnly, pool())
    with pytest.raises(ValueError, match="kv-cache-dtype"):
        require_pool(TorchSDPA, pool(torch.float8_e4m3fn))


def test_unknown_and_missing_backends_are_named(monkeypatch):
    with pytest.raises(ValueError, match="unknown attention backend 'fa9'; known: flashinfer, triton, torch_native"):
        attention_class("fa9")
    monkeypatch.setitem(attention.ATTENTION_BACKENDS, "triton", "no_such_package.module:Kind")
    with pytest.raises(ValueError, match="--attention-backend triton is not installed"):
        attention_class("triton")


@pytest.mark.parametrize(
    ("asked", "captures"),
    [
        ({}, True),
        ({"decode_attention_backend": "own"}, True),
        ({"prefill_attention_backend": "library"}, False),
        ({"attention_backend": "library", "decode_attention_backend": "own"}, False),
        ({"attention_backend": "own", "prefill_attention_backend": "library"}, False),
    ],
)
def test_prompts_are_not_captured_with_other_attention_than_was_asked_for(monkeypatch, asked, captures):
    class Own(TorchSDPA):
        captures = captures_prompts = True

    kinds = {"own": Own, "library": TorchSDPA}
    chosen = {attention.FASTEST_DECODE: Own, attention.FASTEST_PREFILL: TorchSDPA}
    monkeypatch.setattr(attention, "_kind", lambda name, fastest, *_: kinds.get(name) or chosen[fastest])
    assert make_attention(ServerArgs(**asked), pool(), [SHAPE]).captures_prompts is captures
