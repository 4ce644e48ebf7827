"""What steps take of a GPU's memory is tried out; here with numbers in place of a GPU, and a real step on the CPU."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.config import ServerArgs
from backend.core import _trial, build_model
from backend.loader.model_config import load_model_config
from backend.models.build import empty_model
from backend.prompt import resolve_model
from backend.runner import device as devices
from backend.runner.device import kv_budget, kv_room
from backend.runner.rehearsal import TRIED_GRAPHS, Trial, Usage, bytes_of_steps, step_of
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import write_model

GIB = 1 << 30
CPU = torch.device("cpu")


@given(st.integers(1, 5000), st.integers(1, 700), st.sampled_from([1, 16, 64]))
def test_a_tried_step_has_all_tokens_in_rows_of_at_most_the_longest(tokens, longest, page):
    inputs = step_of(tokens, longest, page)
    lens = inputs.layout.query_lens.numpy()
    assert lens.sum() == len(inputs.positions) == len(inputs.places) == tokens
    assert lens.min() > 0
    assert lens.max() <= longest
    assert inputs.layout.page_table.shape[1] * page >= lens.max()
    assert (inputs.positions[inputs.last] == lens - 1).all()
    assert len(inputs.sampled_places) == len(lens)


class Runner:
    """Takes memory that is only a number."""

    def __init__(self, gpu, fails=False):
        self.gpu, self.fails, self.captured = gpu, fails, []

    def rehearse(self, tokens, longest):
        if self.fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.gpu.update(inside=tokens * longest)

    def capture(self, sizes, max_row_pages, *, prompts, progress):
        self.captured, self.prompts = sizes, prompts
        self.gpu["inside"] += max(sizes) * max_row_pages
        self.gpu["outside"] += 7 * (len(sizes) + 2 * len(prompts))


def took(graphs, prompts=(), **settings):
    gpu = {"inside": 0, "outside": 1000}
    runner = Runner(gpu, **settings)
    usage = lambda: Usage(gpu["inside"] + gpu["outside"], gpu["outside"])  # noqa: E731
    return bytes_of_steps(lambda: Trial(runner, 100, 50, graphs, prompts, 10), usage), runner


def test_the_largest_graphs_are_tried_and_count_for_all():
    found, runner = took([1, 2, 4, 8, 16, 32])
    assert runner.captured == [8, 16, 32]
    assert len(runner.captured) == TRIED_GRAPHS
    assert found == 100 * 50 + 32 * 10 + 6 * 7
    assert took([4])[0] == 100 * 50 + 4 * 10 + 7
    assert took([])[0] == 100 * 50
    found, runner = took([4], [32, 64, 96])
    assert runner.prompts == [96]
    assert found == 100 * 50 + 4 * 10 + 7 * 7


def test_a_step_that_does_not_fit_is_told():
    with pytest.raises(ValueError, match="lower --chunked-prefill-size"):
        took([1], fails=True)


def test_the_pool_is_what_steps_and_some_spare_leave(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60 * GIB, 100 * GIB))
    cuda = torch.device("cuda")
    assert kv_budget(ServerArgs(), cuda) == pytest.approx(48 * GIB, rel=1e-6)
    assert kv_budget(ServerArgs(), cuda, steps=5 * GIB) == pytest.approx(49 * GIB, rel=1e-6)
    shared = ServerArgs(mem_fraction_static=0.7)
    assert kv_budget(shared, cuda, steps=5 * GIB) == pytest.approx(30 * GIB, rel=1e-6)
    assert kv_budget(shared, cuda, steps=40 * GIB) == pytest.approx(14 * GIB, rel=1e-6)
    assert kv_room(shared, cuda, 1 << 20, 1 << 30, 4, 40 * GIB) == pytest.approx(14 << 10, abs=1)
    with pytest.raises(ValueError, match="raise --mem-fraction-static"):
        kv_room(shared, cuda, 1 << 20, 1 << 30, 4, 59 * GIB)
    assert devices.GPU_SPARE_SHARE < 1 - devices.GPU_STATIC_SHARE


def test_a_runner_over_one_page_takes_a_whole_step(tmp_path):
    """With the whole context and all rows; nothing but page 0 is written."""
    source = resolve_model(write_model("llama", tmp_path))
    args = ServerArgs(model_path=str(source.path), page_size=4, chunked_prefill_size=200, max_running_requests=3)
    config = load_model_config(source)
    with torch.inference_mode():
        model = empty_model(config, torch.float32, CPU)
        for parameter in model.parameters():
            parameter.normal_()
    trial = _trial(args, config, model, torch.float32, CPU)
    assert (trial.tokens, trial.longest) == (200, config.max_position_embeddings)
    assert list(trial.graphs) == []
    trial.runner.rehearse(trial.tokens, 64)
    pool = trial.runner._attention._pool
    written = [np.flatnonzero(keys.abs().sum((1, 2, 3)).numpy()).tolist() for keys in pool.keys]
    assert written == [[0]] * len(pool.keys)


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss", "deepseek-v3"])
def test_models_of_other_kinds_can_be_tried(tmp_path, name):
    """Windows with pages of their own, sinks and experts, latent attention."""
    torch.manual_seed(0)
    VARIANTS[name].make().save_pretrained(tmp_path)
    source = resolve_model(str(tmp_path))
    args = ServerArgs(model_path=str(tmp_path), chunked_prefill_size=100, max_running_requests=3)
    config = load_model_config(source, args)
    trial = _trial(args, config, build_model(args, source, config, torch.float32, CPU), torch.float32, CPU)
    trial.runner.rehearse(trial.tokens, 40)
    assert trial.tokens == 100
