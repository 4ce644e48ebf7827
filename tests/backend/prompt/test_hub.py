"""Fetching from a hub: which files, from where, and what is said when it fails.

Each fetch is a process of its own, because the hub's client reads its environment when it is imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backend.prompt.fake_hub import COMMIT, TOKEN, running_hub

# Contents differ: the client fetches equal files once.
PROMPT_FILES = {"config.json": b"{}", "tokenizer.json": b"{ }", "chat_template.jinja": b"hi"}
WEIGHTS = {"model-00001-of-00001.safetensors": b"w", "model.safetensors.index.json": b"{  }"}
UNWANTED = {
    "README.md": b"",
    "pytorch_model.bin": b"",
    "consolidated.safetensors": b"",
    "original/model.safetensors": b"",
    "onnx/model.onnx": b"",
    "modeling_tiny.py": b"",
}
REPOSITORIES = {
    "org/tiny": {**PROMPT_FILES, **WEIGHTS, **UNWANTED},
    "org/gated": {**PROMPT_FILES, **WEIGHTS},
}
PROGRAM = """
import json, sys
from backend.prompt import ModelError, resolve_model
try:
    source = resolve_model(sys.argv[1], **json.loads(sys.argv[2]))
    print(json.dumps({"path": str(source.path), "kind": source.kind, "name": source.name}))
except ModelError as error:
    print(json.dumps({"error": str(error), "type": type(error).__name__}))
"""


@pytest.fixture(scope="module")
def hub():
    with running_hub(REPOSITORIES, gated={"org/gated"}) as hub:
        yield hub


@pytest.fixture
def fetch(hub, tmp_path):
    def run(name, options=None, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), **environment}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, name, json.dumps(options or {})],
            env={**clean, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    hub.served.clear()
    return run


def files_in(answer):
    folder = Path(answer["path"])
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_needed_files_come_and_only_once(fetch, hub, tmp_path):
    answer = fetch("org/tiny")
    assert (answer["kind"], answer["name"]) == ("folder", "org/tiny")
    assert files_in(answer) == set(hub.served) == {*PROMPT_FILES, *WEIGHTS}
    assert Path(answer["path"]).is_relative_to(tmp_path / "home")

    hub.served.clear()
    assert fetch("org/tiny") == answer
    assert fetch("org/tiny", HF_HUB_OFFLINE="1") == answer
    assert fetch("org/tiny", HF_ENDPOINT="http://127.0.0.1:9") == answer
    assert hub.served == []


def test_a_prompt_needs_no_weights(fetch):
    assert files_in(fetch("org/tiny", {"only": "prompt"})) == set(PROMPT_FILES)


def test_revision_and_download_folder(fetch, tmp_path):
    answer = fetch("org/tiny", {"revision": COMMIT, "download_dir": str(tmp_path / "elsewhere")})
    assert Path(answer["path"]).is_relative_to(tmp_path / "elsewhere")
    answer = fetch("org/tiny", {"revision": "no-such-branch"})
    assert answer["type"] == "ModelNotFound"
    assert "no revision 'no-such-branch'" in answer["error"]


def test_a_missing_model(fetch):
    answer = fetch("org/missing")
    assert answer["type"] == "ModelNotFound"
    assert "'org/missing' is neither a folder here nor on the hub" in answer["error"]


def test_a_gated_model_opens_with_the_token_only(fetch):
    for environment in ({}, {"HF_TOKEN": "hf_wrong"}):
        answer = fetch("org/gated", **environment)
        assert answer["type"] == "ModelAccessError"
        assert "'org/gated' is gated" in answer["error"]
        assert "HF_TOKEN" in answer["error"]
    assert files_in(fetch("org/gated", HF_TOKEN=TOKEN)) == {*PROMPT_FILES, *WEIGHTS}


def test_offline(fetch):
    answer = fetch("org/tiny", HF_HUB_OFFLINE="1")
    assert answer["type"] == "HubUnreachable"
    assert "HF_HUB_OFFLINE forbids" in answer["error"]


def test_an_unreachable_hub(fetch):
    answer = fetch("org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["type"] == "HubUnreachable"
    assert "cannot be reached" in answer["error"]
    assert "\n" not in answer["error"]
