"""The model of ``transformers`` that the offline benchmark compares with: dense weights, though its file is packed."""

from __future__ import annotations

import torch

from backend.prompt import resolve_model
from benchmarks.offline import load_transformers


def test_the_default_models_weights_are_dense():
    model = load_transformers(resolve_model(None), torch.bfloat16)
    assert type(model.model.layers[0].mlp.up_proj) is torch.nn.Linear
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.num_parameters() == 134_515_008
    assert model.lm_head.weight is model.model.embed_tokens.weight
