"""Packed weights: the same products, for any number of rows."""

import pytest
import torch
import torch.nn.functional as F

from backend.config import ServerArgs
from backend.core import build_model
from backend.layers import Embedding, Linear, LMHead
from backend.layers.packed import pack_linears, packs
from backend.loader.model_config import load_model_config
from backend.prompt.source import resolve_model
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import save_tiny

CPU = torch.device("cpu")
needs_bfloat16 = pytest.mark.skipif(not packs(CPU, torch.bfloat16), reason="oneDNN without bfloat16 on this CPU")


def filled(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    module.to(torch.bfloat16)
    for parameter in module.parameters():
        parameter.normal_(std=0.1)
    return module


@needs_bfloat16
@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_products_are_those_of_plain_weights(bias):
    linear = filled(Linear(48, 80, bias=bias))
    plain = linear.weight.detach().clone()
    pack_linears(linear)
    for rows in (0, 1, 2, 3, 7, 16, 33, 200):
        x = torch.randn(rows, 48).to(torch.bfloat16)
        expected = F.linear(x.float(), plain.float(), linear.bias.float() if bias else None)
        torch.testing.assert_close(linear(x), expected.to(torch.bfloat16), rtol=2**-7, atol=2**-8)
    assert linear.weight.is_mkldnn
    assert linear.weight.nbytes == plain.nbytes


@needs_bfloat16
@torch.inference_mode()
def test_a_head_that_shares_its_matrix_leaves_the_embedding_as_it_is():
    embedding, head = filled(Embedding(40, 16)), LMHead(40, 16)
    head.tie(embedding)
    x = torch.randn(3, 16).to(torch.bfloat16)
    before, vectors = head(x), embedding(torch.arange(40))
    pack_linears(head)
    torch.testing.assert_close(head(x), before, rtol=2**-7, atol=2**-8)
    assert torch.equal(embedding(torch.arange(40)), vectors)


@needs_bfloat16
@pytest.mark.parametrize("variant", ["llama", "gpt-oss", "deepseek-v3"])
def test_only_bfloat16_is_packed_and_matrices_that_others_read_are_not(variant, tmp_path):
    folder = save_tiny(variant, VARIANTS[variant].make, tmp_path)
    source = resolve_model(folder)
    args, config = ServerArgs(model_path=folder), load_model_config(source)

    def linears(dtype: torch.dtype) -> list[Linear]:
        model = build_model(args, source, config, dtype, CPU)
        return [module for module in model.modules() if isinstance(module, Linear)]

    assert not any(linear.weight.is_mkldnn for linear in linears(torch.float32))
    packed = linears(torch.bfloat16)
    assert [linear.weight.is_mkldnn for linear in packed] == [not linear.lends_weight for linear in packed]
