"""``--json-model-override-args`` changes what is read, in the words of transformers 4 or 5."""

import json

import pytest

from backend.config import ServerArgs
from backend.loader.model_config import load_model_config
from backend.prompt import ModelError, resolve_model
from tests.backend.loader.tiny import tiny_llama, write_model_gguf

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
FIVE = {"rope_parameters": {"rope_type": "default", "rope_theta": 70000.0}}
FOUR = {"rope_theta": 70000.0, "rope_scaling": None}


def load(path, changes):
    text = changes if isinstance(changes, str) else json.dumps(changes)
    return load_model_config(resolve_model(str(path)), ServerArgs(json_model_override_args=text))


@pytest.fixture(params=[FOUR, FIVE], ids=["transformers 4", "transformers 5"])
def folder(request, tmp_path):
    tiny_llama().config.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    stored = {**json.loads(path.read_text()), "architectures": ["LlamaForCausalLM"]}
    del stored["rope_parameters"]
    path.write_text(json.dumps({**stored, **request.param}))
    return tmp_path


def test_nothing_changes_without_it(folder):
    assert load(folder, {}).rope.theta == 70000.0


def test_scaling_is_replaced_and_theta_kept(folder):
    rope = load(folder, {"rope_scaling": YARN}).rope
    assert (rope.rope_type, rope.factor, rope.original_max_position_embeddings) == ("yarn", 4.0, 32)
    assert rope.theta == 70000.0


def test_theta_is_replaced(folder):
    assert load(folder, {"rope_theta": 5000.0}).rope.theta == 5000.0
    assert load(folder, {"rope_parameters": {"rope_type": "default", "rope_theta": 6000.0}}).rope.theta == 6000.0


def test_other_keys_are_replaced(folder):
    config = load(folder, {"max_position_embeddings": 64, "eos_token_id": [7]})
    assert (config.max_position_embeddings, config.eos_token_ids) == (64, (7,))


def test_a_gguf_file_is_overridden_too(tmp_path):
    write_model_gguf(tmp_path / "m.gguf", tiny_llama())
    assert load(tmp_path / "m.gguf", {"rope_theta": 5000.0}).rope.theta == 5000.0


@pytest.mark.parametrize(("text", "reason"), [("{", "not valid JSON"), ("[1]", "must be a JSON object")])
def test_what_is_no_object_is_refused(folder, text, reason):
    with pytest.raises(ModelError, match=f"--json-model-override-args .*{reason}|is {reason}"):
        load(folder, text)


@pytest.mark.parametrize("changes", [{"rope_scaling": "yarn"}, {"rope_parameters": 5}])
def test_rotary_parameters_must_be_objects(folder, changes):
    with pytest.raises(ModelError, match=r"override-args: rope_\w+ must be an object, got "):
        load(folder, changes)


def test_a_gguf_file_is_not_for_transformers(tmp_path):
    write_model_gguf(tmp_path / "m.gguf", tiny_llama())
    with pytest.raises(ModelError, match=r"--model-impl transformers needs a model folder"):
        load_model_config(resolve_model(str(tmp_path / "m.gguf")), ServerArgs(model_impl="transformers"))


@pytest.mark.parametrize(
    "changes",
    [{"sliding_window": [1]}, {"layer_types": 5, "sliding_window": 4}, {"rope_theta": "a"}, {"rms_norm_eps": "x"}],
)
def test_a_value_of_a_wrong_kind_is_told_in_a_line(folder, changes):
    with pytest.raises(ModelError, match="the configuration has a value of a wrong kind: "):
        load(folder, changes)


def test_a_negative_window_is_refused(folder):
    with pytest.raises(ModelError, match="sliding_window must be at least 1 token, or null, got -5"):
        load(folder, {"sliding_window": -5})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1 on, got 0"),
        ({"num_attention_heads": 0}, "num_attention_heads must be a whole number from 1 on, got 0"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be a whole number from 1 on, got 0"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads must be a divisor of num_attention_heads \(4\), got 3"),
        ({"hidden_size": -64}, "hidden_size must be a whole number from 1 on, got -64"),
        ({"intermediate_size": 2.5}, "intermediate_size must be .*, got 2.5"),
        ({"vocab_size": 0}, "vocab_size must be a whole number from 1 on, got 0"),
        ({"max_position_embeddings": -1}, "max_position_embeddings must be a whole number from 1 on, got -1"),
        ({"max_position_embeddings": 10**11}, "max_position_embeddings must be at most 16777216, got 100000000000"),
        ({"head_dim": True}, "head_dim must be a whole number from 1 on, got True"),
        (
            {"head_dim": None, "hidden_size": 33},
            r"hidden_size must be a multiple of num_attention_heads \(4\), or head_dim must be given, got 33",
        ),
    ],
)
def test_an_impossible_size_is_told_with_its_key_and_value(folder, changes, told):
    with pytest.raises(ModelError, match=f"config.json: {told}.*; correct it there, or in --json-model-override-args"):
        load(folder, changes)


def test_latent_attention_has_one_key_whatever_the_heads_of_a_default(folder):
    latent = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "num_key_value_heads": 128, "hidden_size": 33}
    config = load(folder, {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", **latent})
    assert (config.num_kv_heads, config.head_dim) == (1, 24)
