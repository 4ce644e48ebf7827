"""Decode steps through graphs: padded, grouped by what they share, drawn. On the CPU a replay runs the step anew."""

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backend import Engine, core
from backend.attention.sharing import Sharing
from backend.attention.torch_sdpa import TorchSDPA
from backend.config import ServerArgs
from backend.messages import NewRequest, SchedulerStats, ToScheduler
from backend.prompt.source import resolve_model
from backend.runner import graphs, kv_pools, model_runner
from backend.runner.captured import Recorder
from backend.runner.graphs import graph_sizes
from backend.runner.prompt_graphs import PromptGraphs, prompt_sizes
from backend.runner.token_pool import TokenPool
from backend.sampling_params import SamplingParams
from tests.backend.models.families import VARIANTS
from tests.backend.tiny_models import VOCAB, greedy, save_tiny, write_model

ROWS = 10
MOST_TOKENS = 320  # of a captured step with prompts


class Replayed:
    """Stands for a CUDA graph: it computes from what stands in the fixed buffers."""

    def __init__(self, step):
        self._step = step
        self.replays = 0

    def replay(self):
        self.replays += 1
        self._step()

    def pool(self):
        return (0, 0)


class SparePool(TokenPool):
    """As on a GPU: memory of its own, with a token for rows of padding."""

    def __init__(self, slots, device, upload):
        super().__init__(slots, device, upload)
        self.flat = torch.zeros(self.spare + 1, dtype=torch.int32)

    def upload(self, slots, rows):
        for row in rows:
            known, start = slots.known[row], row * slots.tokens.shape[1]
            self.flat[start : start + known] = torch.from_numpy(slots.tokens[row, :known])


class FixedSDPA(TorchSDPA):
    """Plans that a graph may hold; rows are put in random order, as groups of them would be."""

    captures = captures_prompts = shares = True
    random = np.random.default_rng(0)

    def reserve(self, max_rows, max_row_pages, memory):
        self.reserved = max_rows

    def plan_fixed(self, layout):
        assert len(layout.query_lens) <= self.reserved
        self.plan(layout)

    def reserve_padded(self, largest, max_row_pages, memory):
        self.largest, self.room = largest, max_row_pages

    def plan_padded(self, layout, size):
        assert int(layout.query_lens.sum()) == size.tokens <= self.largest.tokens
        assert len(layout.query_lens) <= size.rows + 1 <= self.largest.rows + 1
        assert layout.page_table.shape[1] <= self.room
        self.plan(layout)

    def find_sharing(self, layout):
        rows = len(layout.query_lens)
        if self.random.random() < 0.5:
            return None
        return Sharing(self.random.permutation(rows), np.array([0, rows], np.int32), (np.empty(0, np.int32),))

    def plan_shared(self, layout, sharing):
        assert sharing.bounds[-1] == len(layout.query_lens)
        self.plan(layout)


class Made(list):
    """What was captured, and how often steps with prompts were replayed."""

    prompts = 0


@pytest.fixture
def recorded(monkeypatch):
    """Engines capture their steps."""
    made = Made()
    run = PromptGraphs.run

    def counted(self, inputs, size):
        made.prompts += 1
        return run(self, inputs, size)

    def record(self, step, warm_up_runs):
        step()
        made.append(Replayed(step))
        return made[-1]

    class CapturingRunner(model_runner.ModelRunner):
        def __init__(self, model, attention, *args, **more):
            super().__init__(model, attention, *args, **more)
            self.capture(graph_sizes(ROWS), 64, prompts=prompt_sizes(MOST_TOKENS))

    monkeypatch.setattr(Recorder, "record", record)
    monkeypatch.setattr(PromptGraphs, "run", counted)
    monkeypatch.setattr(graphs, "LEAST_SHARED", 4)
    monkeypatch.setattr(model_runner, "TokenPool", SparePool)
    monkeypatch.setattr(core, "ModelRunner", CapturingRunner)
    monkeypatch.setattr(kv_pools, "make_attention", lambda args, pool, shapes: FixedSDPA(pool, shapes))
    return made


@pytest.fixture(scope="module", params=["qwen3", "gemma3"])
def folder(request, tmp_path_factory):
    """The second one has layers with a window, and so pages of two kinds."""
    made = tmp_path_factory.mktemp(request.param)
    if request.param == "gemma3":
        return save_tiny("gemma3", VARIANTS["gemma3"].make, made)
    return write_model("qwen3", made)


def prompts(count):
    r = random.Random(4)
    return [[r.randrange(3, VOCAB) for _ in range(r.randint(1, 40))] for _ in range(count)]


def answers(folder, batch, **sampling):
    parameters = [
        {"max_new_tokens": 5 + i, "sampling_seed": i, "ignore_eos": True} | sampling for i in range(len(batch))
    ]
    with Engine(
        folder,
        device="cpu",
        dtype="float32",
        skip_tokenizer_init=True,
        cpu_threads=1,
        max_total_tokens=2048,
        max_running_requests=ROWS,
        check_invariants=True,
    ) as engine:
        results = engine.generate(input_ids=batch, sampling_params=parameters, progress=False)
    return [result["output_ids"] for result in results]


def test_replayed_steps_give_the_reference(folder, recorded):
    batch = prompts(14)
    found = answers(folder, batch, temperature=0, ignore_eos=False)
    assert found == [greedy(folder, prompt, 5 + i) for i, prompt in enumerate(batch)]
    assert sum(graph.replays for graph in recorded) - recorded.prompts > 15
    assert recorded.prompts > 1


def test_rows_that_draw_sample_once_more(folder, recorded, monkeypatch):
    batch = prompts(12)
    sampling = {"temperature": 0.9, "top_p": 0.8, "frequency_penalty": 0.2}
    found = answers(folder, batch, **sampling)
    assert sum(graph.replays for graph in recorded) - recorded.prompts > 10
    assert recorded.prompts > 1
    monkeypatch.undo()
    assert found == answers(folder, batch, **sampling)


def test_sizes_are_all_small_ones_and_the_largest():
    assert graph_sizes(1) == [1]
    assert graph_sizes(20) == [1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20]
    for largest in (256, 300, 1000):
        sizes = graph_sizes(largest)
        assert sizes[-1] == largest
        assert sizes == sorted(set(sizes))
        assert all(b - a <= a // 2 for a, b in itertools.pairwise(sizes) if a >= 8)


def test_sizes_of_prompts_grow_by_a_quarter_at_most():
    assert prompt_sizes(20) == []
    assert prompt_sizes(128) == [32, 64, 96, 128]
    assert prompt_sizes(600) == [32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512]


@pytest.mark.parametrize(
    ("asked", "budget", "rows", "context", "largest"),
    [
        ({}, 8192, 64, 40960, 1024),
        ({}, 512, 64, 40960, 512),
        ({}, 512, 128, 40960, 640),  # a whole chunk, and rows that decode beside it
        ({}, 8192, 64, 300, 256),
        ({"prefill_cuda_graph_max_tokens": 2048}, 8192, 64, 40960, 2048),
        ({"disable_prefill_cuda_graph": True}, 8192, 64, 40960, None),
    ],
)
def test_prompts_are_captured_as_far_as_a_step_goes(asked, budget, rows, context, largest):
    limits = SimpleNamespace(prefill_budget=budget, max_running_requests=rows, context_length=context)
    sizes = core._prompt_graph_sizes(ServerArgs(**asked), limits, SimpleNamespace(hidden_size=4096))
    assert (sizes[-1] if sizes else None) == largest


def test_passes_by_graph_and_others_are_counted(folder, recorded):
    args = ServerArgs(
        model_path=folder, device="cpu", dtype="float32", skip_tokenizer_init=True, cpu_threads=1,
        max_total_tokens=2048, max_running_requests=ROWS + 1,
    )  # fmt: skip
    built = core.build_core(args, resolve_model(folder))
    ids, sampling = np.array([5, 6, 7], np.int32).tobytes(), SamplingParams(max_new_tokens=4, temperature=0)
    stats = SchedulerStats()
    for rows, graph, plain in ((ROWS, 3, 0), (ROWS + 1, 3, 3)):  # the first token comes from the prompt's step
        built.scheduler.receive(ToScheduler(new=[NewRequest(rows * 100 + i, ids, sampling, []) for i in range(rows)]))
        while built.scheduler.has_work:
            built.scheduler.step()
        built.tell(stats)
        assert (stats.graph_decodes_total, stats.plain_decodes_total) == (graph, plain)
        assert stats.decodes_by_graph == (rows == ROWS)
