"""Architectures without a file here are run by ``transformers`` over paged attention, or refused with the reason."""

import json
import logging

import pytest
import torch
from transformers import (
    AutoConfig,
    DiffLlamaConfig,
    FalconConfig,
    LlamaConfig,
    MambaConfig,
    PhimoeConfig,
    Qwen3NextConfig,
    T5Config,
)

from backend import Engine
from backend.config import ServerArgs
from backend.core import build_model
from backend.loader.model_config import load_model_config
from backend.models import WeightError
from backend.prompt import ModelError, resolve_model
from tests.backend.models.families import VARIANTS
from tests.backend.models.foreign import FOREIGN
from tests.backend.models.parity import WAYS, sequences, worst_difference
from tests.backend.tiny_models import COMMON, greedy, save_tiny

TOLERANCE = 1e-4
NEW_TOKENS = 10
OPTIONS = {"dtype": "float32", "skip_tokenizer_init": True, "cpu_threads": 1, "max_total_tokens": 1024}


@pytest.fixture(scope="module", params=FOREIGN)
def folder(request, tmp_path_factory):
    return save_tiny(request.param, FOREIGN[request.param].make, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def rows():
    return sequences((60, 31, 20, 7))


@pytest.mark.parametrize("way", WAYS)
def test_logits_equal_the_reference(folder, rows, way):
    assert worst_difference(folder, way, rows) < TOLERANCE


def test_greedy_tokens_equal_the_reference(folder, rows):
    expected = [greedy(folder, row, NEW_TOKENS) for row in rows]
    with Engine(folder, chunked_prefill_size=16, check_invariants=True, **OPTIONS) as engine:
        results = engine.generate(
            input_ids=rows, sampling_params={"temperature": 0, "max_new_tokens": NEW_TOKENS}, progress=False
        )
    assert [result["output_ids"] for result in results] == expected


def load(folder, **args):
    source = resolve_model(str(folder))
    settings = ServerArgs(model_path=str(folder), **args)
    config = load_model_config(source, settings).limited(settings.context_length)
    return build_model(settings, source, config, torch.float32, torch.device("cpu"))


def test_a_known_architecture_may_be_run_so_too(tmp_path, rows, caplog):
    folder = save_tiny("gemma2", VARIANTS["gemma2"].make, tmp_path)
    with caplog.at_level(logging.INFO, "backend"):
        assert not caplog.records
        model = load(folder, model_impl="transformers")
    assert [record.message for record in caplog.records] == [
        "Gemma2ForCausalLM is run by transformers, over paged attention (--model-impl transformers)"
    ]
    shapes = model.attention_shapes()
    assert [shape.window for shape in shapes] == [12, None, 12]
    assert {(shape.soft_cap, shape.scale, shape.head_dim) for shape in shapes} == {(50.0, 24**-0.5, 16)}
    own = load(folder).attention_shapes()
    assert own == shapes


@pytest.mark.parametrize("family", ["gemma3", "gpt-oss", "qwen3-moe"])
def test_every_familys_sizes_are_read_alike(tmp_path, family):
    source = resolve_model(str(save_tiny(family, VARIANTS[family].make, tmp_path)))
    own, foreign = load_model_config(source), load_model_config(source, ServerArgs(model_impl="transformers"))
    assert (own.num_heads, own.windows, own.vocab_size) == (foreign.num_heads, foreign.windows, foreign.vocab_size)


def test_native_only_refuses_what_is_not_native(tmp_path):
    save_tiny("olmo2", FOREIGN["olmo2"].make, tmp_path)
    with pytest.raises(ModelError, match=r"'Olmo2ForCausalLM' is not supported; nearest: "):
        load(tmp_path, model_impl="native")


def test_dummy_weights_need_no_checkpoint(tmp_path):
    save_tiny("olmo2", FOREIGN["olmo2"].make, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    weights = [load(tmp_path, load_format="dummy", random_seed=seed).parts.head.lm_head.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_checkpoint_without_a_tensor_is_refused(tmp_path):
    model = FOREIGN["olmo2"].make()
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "model.layers.1.mlp.up_proj.weight"}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(WeightError, match=r"lacks 1 tensors, among them .*layers\.1\.mlp\.up_proj\.weight"):
        load(tmp_path)


def config_only(folder, config, architecture):
    config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [architecture]}))
    return folder


REFUSED = {
    "MambaForCausalLM": (lambda: MambaConfig(num_hidden_layers=2), r"has convolutions .*state-space.*; nearest: \w+"),
    "Qwen3NextForCausalLM": (lambda: Qwen3NextConfig(num_hidden_layers=4), r"has convolutions|layers of the kind"),
    "FalconForCausalLM": (lambda: FalconConfig(num_hidden_layers=2), "attention of its own"),
    "DiffLlamaForCausalLM": (lambda: DiffLlamaConfig(**COMMON), "attends more than once in layer 0"),
    "T5ForConditionalGeneration": (T5Config, r"encoder-decoder .*; nearest: \w+"),
    "PhimoeForCausalLM": (
        lambda: PhimoeConfig(**{**COMMON, "num_key_value_heads": 2}, sliding_window=12),
        "does not tell attention which layers see a window of 12 tokens",
    ),
    "Olmo22ForCausalLM": (lambda: AutoConfig.for_model("olmo2"), r"has no such decoder; nearest: Olmo\w*ForCausalLM"),
}


@pytest.mark.parametrize("architecture", REFUSED)
def test_what_cannot_be_served_says_why(tmp_path, architecture):
    make, reason = REFUSED[architecture]
    with pytest.raises(ModelError, match=reason) as error:
        load_model_config(resolve_model(str(config_only(tmp_path, make(), architecture))))
    assert "\n" not in str(error.value)
    assert architecture in str(error.value)


def test_positions_that_depend_on_the_batch_need_a_shorter_context(tmp_path):
    """Dynamic scaling changes the frequencies once a row is longer than the declared context."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = LlamaConfig(**COMMON, rope_parameters={**rope, "original_max_position_embeddings": 64})
    folder = config_only(tmp_path, config, "LlamaForCausalLM")
    with pytest.raises(ValueError, match="--context-length 64"):
        load(folder, model_impl="transformers", load_format="dummy")
    assert load(folder, model_impl="transformers", load_format="dummy", context_length=64)
