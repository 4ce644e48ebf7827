"""Sampling parameters from generation_config.json."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from backend.api.sampling_defaults import model_sampling_defaults, with_defaults
from backend.prompt import ModelError
from backend.prompt.source import ModelSource
from tests.backend.api.conftest import MODEL, Backend

HI = [{"role": "user", "content": "hi"}]


def _folder(tmp_path: Path, config: object) -> ModelSource:
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    return ModelSource(tmp_path, "folder", "m")


@pytest.mark.parametrize(
    ("config", "defaults"),
    [
        ({"temperature": 0.6, "top_p": 0.95, "top_k": 20}, {"temperature": 0.6, "top_p": 0.95, "top_k": 20}),
        ({"min_p": 0.1, "repetition_penalty": 1.05, "eos_token_id": 3}, {"min_p": 0.1, "repetition_penalty": 1.05}),
        ({"do_sample": True, "top_k": 0}, {"top_k": -1}),
        ({"do_sample": False, "temperature": 0.7}, {"temperature": 0.0}),
        ({"temperature": None, "top_p": "much"}, {}),
    ],
)
def test_what_the_file_says(tmp_path: Path, config: dict, defaults: dict) -> None:
    assert model_sampling_defaults(_folder(tmp_path, config)) == defaults


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    assert model_sampling_defaults(ModelSource(tmp_path, "folder", "m")) == {}
    assert model_sampling_defaults(ModelSource(tmp_path / "m.gguf", "gguf", "m")) == {}


def test_a_file_that_is_no_object(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="generation_config"):
        model_sampling_defaults(_folder(tmp_path, [1]))


def test_null_means_the_default_and_what_is_given_wins() -> None:
    assert with_defaults({"top_p": None, "top_k": 3}, {"top_p": 0.5, "top_k": 1}) == {"top_p": 0.5, "top_k": 3}


async def test_a_request_without_them_gets_them(backend: Backend) -> None:
    assert backend.context.loaded is not None
    backend.context.loaded = dataclasses.replace(
        backend.context.loaded, sampling_defaults={"temperature": 0.6, "top_k": 20}
    )
    await backend.sdk.chat.completions.create(model=MODEL, messages=HI, max_tokens=1, temperature=0)
    await backend.sdk.completions.create(model=MODEL, prompt="a", max_tokens=1)
    await backend.http.post("/generate", json={"text": "a", "sampling_params": {"max_new_tokens": 1}})
    found = [(each.sampling.temperature, each.sampling.top_k) for each in backend.engine.received]
    assert found == [(0.0, 20), (0.6, 20), (1.0, -1)]
