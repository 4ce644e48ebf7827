"""Decode steps through ``torch.compile`` give the tokens of the model itself; what cannot be compiled is told."""

from functools import partial

import pytest

from backend import Engine
from backend.runner import model_runner
from backend.runner.compiled import CompiledForward
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import greedy, save_tiny, write_model

BATCH = [[5, 6, 7, 8], [9, 10], [11, 12, 13, 14, 15, 16, 17]]


def make_engine(folder, **args):
    settings = {"dtype": "float32", "device": "cpu", "skip_tokenizer_init": True, "cpu_threads": 1}
    return Engine(folder, **(settings | {"max_total_tokens": 1024, "enable_torch_compile": True} | args))


def answers(engine):
    sampling = {"temperature": 0, "max_new_tokens": 9}
    return [r["output_ids"] for r in engine.generate(input_ids=BATCH, sampling_params=sampling, progress=False)]


class Counted(CompiledForward):
    """Traced as for a compiler, and then run as it is: what the compiler makes of it is tried on GPUs."""

    made: list = []

    def __init__(self, *args):
        super().__init__(*args, backend="eager")
        self.rows = []
        self.made.append(self)
        compiled = self._compiled
        self._compiled = lambda ids, positions: (self.rows.append(len(ids)), compiled(ids, positions))[1]


def test_compiled_steps_give_the_same_tokens(tmp_path, monkeypatch):
    """Up to the largest batch size that was asked for, and beyond it."""
    monkeypatch.setattr(model_runner, "CompiledForward", Counted)

    folder = write_model("llama", tmp_path)
    with make_engine(folder, torch_compile_max_bs=2) as engine:
        assert answers(engine) == [greedy(folder, prompt, 9) for prompt in BATCH]
        engine.generate(input_ids=BATCH[:2], sampling_params={"max_new_tokens": 3}, progress=False)
    assert set(Counted.made[-1].rows) == {1, 2}


@pytest.mark.parametrize("name", ["mixtral"])
def test_models_that_are_not_compiled_are_told(name, tmp_path):
    folder = save_tiny(name, VARIANTS[name].make, tmp_path)
    with pytest.raises(ValueError, match="--enable-torch-compile does not do mixtures of experts; start without it"):
        make_engine(folder)


def test_a_compiler_that_fails_is_told(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(model_runner, "CompiledForward", partial(CompiledForward, backend=fail))
    with pytest.raises(ValueError, match=r"^--enable-torch-compile: torch.compile failed \(.*no compiler here"):
        make_engine(write_model("llama", tmp_path))


def test_other_ways_to_compute_are_not_deterministic(tmp_path):
    with pytest.raises(ValueError, match="--enable-deterministic-inference rules out; drop one"):
        make_engine(write_model("llama", tmp_path), enable_deterministic_inference=True)
