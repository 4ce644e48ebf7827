"""``launch_server --check``: sizes from the configuration alone, and a verdict for this machine."""

import json
import re

import pytest
import torch

from backend.check import check
from backend.config import ServerArgs
from backend.launch_server import main
from backend.loader.model_config import load_model_config
from backend.models.build import footprint, require_memory, require_room, size
from backend.prompt.source import resolve_model
from tests.backend.models.families import VARIANTS

LLAMA_70B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def folder(tmp_path):
    def write(**changes):
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA_70B, **changes}))
        return str(tmp_path)

    return write


def of(path, dtype=torch.bfloat16):
    return footprint(load_model_config(resolve_model(path)), dtype)


def test_published_sizes(folder):
    needs = of(folder())
    assert needs.parameters == 70_553_706_496  # what Meta's checkpoint holds
    assert needs.weights == 2 * needs.parameters
    assert needs.kv_per_token == 2 * 80 * 8 * 128 * 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_of_transformers(variant, tmp_path):
    model = VARIANTS[variant].make()
    model.save_pretrained(tmp_path)
    corrections = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith("correction_bias"))
    assert of(str(tmp_path)).parameters == model.num_parameters() + corrections


def test_a_latent_cache_is_small(folder, tmp_path):
    VARIANTS["deepseek-v2"].make().save_pretrained(tmp_path)
    assert of(str(tmp_path), torch.float32).kv_per_token == 3 * (16 + 4) * 4


def test_a_model_that_fits(folder, capsys):
    path = folder(**SMALL)
    assert main(["--check", path, "--dtype", "float32", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "LlamaForCausalLM, 2 layers, 8,192 positions" in out
    assert "fits          yes" in out


def test_a_model_that_does_not_fit(folder, capsys):
    assert main(["--check", "--model-path", folder(num_hidden_layers=8000), "--device", "cpu"]) == 1
    assert "fits          no: the weights lack" in capsys.readouterr().out


def test_a_context_that_does_not_fit_is_said(folder):
    small = folder(**SMALL)
    found = check(ServerArgs(check=small, device="cpu", max_total_tokens=1024))
    assert found.fits
    assert "with less context" in found.lines[-1]
    assert "1,024 tokens" in found.lines[-1]


def test_what_cannot_be_served_is_one_line(folder, capsys):
    assert main(["--check", folder(architectures=["LamaForCausalLM"])]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "LlamaForCausalLM" in error


def test_too_little_memory_names_needed_free_and_flag():
    with pytest.raises(ValueError, match=r"3\.0 GiB needed in float32, 1\.0 GiB free on cpu; --dtype bfloat16 halves"):
        require_memory(3 << 30, 1 << 30, torch.float32, torch.device("cpu"))


def test_sizes_for_people():
    assert [size(count) for count in (12, 2048, 3 << 20)] == ["12 bytes", "2.0 KiB", "3.0 MiB"]


def test_layers_with_a_window_are_told_apart(folder, monkeypatch):
    monkeypatch.setattr("backend.check.kv_budget", lambda *args, **more: 4 << 20)
    args = {"device": "cpu", "dtype": "bfloat16", "max_running_requests": 4}
    small = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64, "vocab_size": 100}
    path = folder(**small, max_position_embeddings=65536, sliding_window=512, sliding_window_pattern=2)
    lines = check(ServerArgs(model_path=path, **args)).lines
    assert "32 bytes of it in layers with a window" in lines[3]
    told = re.search(r"hold ([\d,]+) tokens \(([\d,]+) where a window of 512 is seen\)", lines[-1])
    together = check(ServerArgs(model_path=path, disable_hybrid_swa_memory=True, **args)).lines[-1]
    alone = re.search(r"hold ([\d,]+) tokens", together)
    tokens, window, without = (int(number.replace(",", "")) for number in (*told.groups(), *alone.groups()))
    assert window < without < tokens
    assert "where a window" not in together


def test_what_was_asked_for_keys_and_values_must_fit():
    require_room(1 << 30, 1 << 30, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"3.0 GiB needed, 1.0 GiB free on cpu; lower --max-total-tokens"):
        require_room(3 << 30, 1 << 30, torch.device("cpu"))
