"""The shapes that are measured are those of the published models, and the program runs without a GPU."""

import pytest
import torch

from backend.loader.model_config import parse_config
from backend.models.build import footprint
from benchmarks import gpu_models
from benchmarks.model_shapes import LARGE

PARAMETERS = {"qwen3-8b": 8.19e9, "qwen3-30b-a3b": 30.5e9, "deepseek-v2-lite": 15.7e9}


@pytest.mark.parametrize("name", LARGE)
def test_shapes_have_the_published_sizes(name):
    found = footprint(parse_config(LARGE[name], where=name), torch.bfloat16)
    assert found.parameters == pytest.approx(PARAMETERS[name], rel=0.005)


def test_a_dry_run_measures_and_names_what_it_left_out(monkeypatch, capsys):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(gpu_models, "ON_GPU", False)
    found = gpu_models.run(["errors", "speed"], ["qwen3", "qwen3-8b"], 600)
    (error,) = found["errors"]
    assert (error["model"], error["attention"], error["passed"]) == ("qwen3", "torch_native", True)
    assert 0 < error["median"] <= error["worst"] < 0.1
    assert [line.get("workload") for line in found["speed"]] == [None, "single", "mixed"]
    assert found["left_out"] == []
    assert gpu_models.run(["windows"], ["gemma3"], -1)["left_out"] == ["windows gemma3"]
