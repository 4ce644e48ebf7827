"""One ModelConfig from transformers 4 and 5 config files and from GGUF metadata."""

import numpy as np
import pytest
from gguf import GGUFWriter
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from backend.config import ServerArgs
from backend.loader.gguf_config import llama3_divisors
from backend.loader.model_config import RopeConfig, load_model_config, parse_config
from backend.prompt import ModelError, resolve_model
from tests.backend.loader.tiny import SHAPE, add_shape, tiny_llama, tiny_qwen3, write_model_gguf
from tests.backend.prompt.tiny import save_gguf, write_json

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
OLD_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    **SHAPE,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": LLAMA3,
    "torch_dtype": "bfloat16",
    "eos_token_id": [5, 6],
    "bos_token_id": 4,
}


def load(path):
    return load_model_config(resolve_model(str(path)))


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
@pytest.mark.parametrize("tied", [True, False])
def test_what_transformers_saves(tmp_path, make, tied):
    model = make(tie_word_embeddings=tied, rope_parameters={"rope_theta": 500000.0, **LLAMA3}, eos_token_id=[5, 6])
    model.save_pretrained(tmp_path)
    config = load(tmp_path)
    assert config.architecture == type(model).__name__
    assert config.hidden_size == 64
    assert config.num_layers == 2
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (4, 2, model.config.head_dim)
    assert config.tie_word_embeddings is tied
    assert config.rms_norm_eps == model.config.rms_norm_eps
    assert (config.rope.theta, config.rope.rope_type, config.rope.factor) == (500000.0, "llama3", 8.0)
    assert config.rope.original_max_position_embeddings == 8192
    assert config.dtype == "float32"
    assert config.eos_token_ids == (5, 6)


def test_a_config_of_transformers_4():
    config = parse_config(OLD_CONFIG, "config.json")
    assert config.rope == RopeConfig(500000.0, "llama3", 8.0, 1.0, 4.0, 8192, raw=LLAMA3)
    assert config.dtype == "bfloat16"
    assert config.head_dim == 16
    assert config.eos_token_ids == (5, 6)
    assert config.bos_token_id == 4
    assert config.raw == OLD_CONFIG


def test_old_spellings_and_absent_keys():
    raw = {**OLD_CONFIG, "rope_scaling": {"type": "linear", "factor": 2}, "torch_dtype": "torch.float16"}
    del raw["num_key_value_heads"], raw["eos_token_id"], raw["rope_theta"]
    config = parse_config(raw, "config.json")
    assert config.num_kv_heads == config.num_heads
    assert (config.rope.rope_type, config.rope.factor, config.rope.theta) == ("linear", 2.0, 10000.0)
    assert config.dtype == "float16"
    assert config.eos_token_ids == ()
    assert config.tie_word_embeddings is False


def test_generation_config_adds_eos_ids(tmp_path):
    write_json(tmp_path / "config.json", OLD_CONFIG)
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [6, 7]})
    assert load(tmp_path).eos_token_ids == (5, 6, 7)


@pytest.mark.parametrize("key", ["architectures", "model_type", "hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_missing_key_is_named(key):
    raw = {name: value for name, value in OLD_CONFIG.items() if name != key}
    with pytest.raises(ModelError, match=rf"^config\.json lacks the required key '{key}'"):
        parse_config(raw, "config.json")


@pytest.mark.parametrize("value", ["64", 1.5, True, [64]])
def test_a_key_of_the_wrong_type_is_named(value):
    with pytest.raises(ModelError, match="'hidden_size' must be of type int"):
        parse_config({**OLD_CONFIG, "hidden_size": value}, "config.json")


def test_an_architecture_that_is_not_supported_is_named_before_its_keys(tmp_path):
    """GPT-2 calls its sizes n_embd, n_layer and n_head."""
    raw = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4}
    write_json(tmp_path / "config.json", raw)
    with pytest.raises(
        ModelError, match=r"config\.json: architecture 'GPT2LMHeadModel' is not supported; nearest: \w+, "
    ):
        load_model_config(resolve_model(str(tmp_path)), ServerArgs(model_impl="native"))


def test_an_unknown_architecture_is_for_the_models_to_judge():
    assert parse_config({**OLD_CONFIG, "architectures": ["NewForCausalLM"]}, "").architecture == "NewForCausalLM"


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
@pytest.mark.parametrize("tied", [True, False])
def test_gguf_says_the_same_as_the_folder(tmp_path, make, tied):
    model = make(tie_word_embeddings=tied, eos_token_id=2, bos_token_id=1)
    model.save_pretrained(tmp_path / "folder")
    write_model_gguf(tmp_path / "model.gguf", model)
    folder, gguf = load(tmp_path / "folder"), load(tmp_path / "model.gguf")
    same = [name for name in folder.__dataclass_fields__ if name not in ("raw", "rope", "rms_norm_eps")]
    assert {name: getattr(gguf, name) for name in same} == {name: getattr(folder, name) for name in same}
    assert gguf.rms_norm_eps == pytest.approx(folder.rms_norm_eps)
    assert (gguf.rope.theta, gguf.rope.rope_type) == (folder.rope.theta, folder.rope.rope_type)


def gguf_with_rope_freqs(path, divisors):
    writer = GGUFWriter(path, "llama")
    config = LlamaConfig(**SHAPE, rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    add_shape(writer, config)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), np.float32))
    writer.add_tensor("rope_freqs.weight", divisors)
    save_gguf(writer)
    return path


def test_rope_freqs_become_llama3_scaling_again(tmp_path):
    # A head of 16 has no frequency in the smooth band below 8192 positions unless theta is large: check that it does.
    divisors = llama3_divisors(500000.0, 16, LLAMA3)
    assert any(1 < value < 8 for value in divisors)
    rope = load(gguf_with_rope_freqs(tmp_path / "a.gguf", divisors)).rope
    assert (rope.rope_type, rope.theta) == ("llama3", 500000.0)
    assert rope.factor == pytest.approx(8.0)
    assert (rope.low_freq_factor, rope.high_freq_factor, rope.original_max_position_embeddings) == (1.0, 4.0, 8192)


def test_divisors_are_those_of_transformers():
    config = LlamaConfig(**{**SHAPE, "head_dim": 128}, rope_parameters={"rope_theta": 500000.0, **LLAMA3})
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    assert np.allclose(plain / scaled.numpy(), llama3_divisors(500000.0, 128, LLAMA3), rtol=1e-4)


def test_other_rope_freqs_are_refused(tmp_path):
    with pytest.raises(ModelError, match="not Llama 3's"):
        load(gguf_with_rope_freqs(tmp_path / "a.gguf", np.linspace(1, 5, 8, dtype=np.float32)))


def test_a_missing_gguf_key_is_named(tmp_path):
    writer = GGUFWriter(tmp_path / "a.gguf", "llama")
    save_gguf(writer)
    with pytest.raises(ModelError, match=r"required metadata key 'llama\.block_count'"):
        load(tmp_path / "a.gguf")


def test_an_unknown_gguf_architecture_is_named(tmp_path):
    save_gguf(GGUFWriter(tmp_path / "a.gguf", "mamba"))
    with pytest.raises(ModelError, match=r"'mamba' is not supported \(supported: gemma3, llama, phi3, qwen2, qwen3\)"):
        load(tmp_path / "a.gguf")
