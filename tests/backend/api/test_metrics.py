"""What ``/metrics`` makes of the scheduler's word."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.api.metrics import Metrics
from backend.cache.host_tree import HostSettings
from backend.frontend.output import StepResult
from backend.grammar import GrammarFigures
from backend.grammar.figures import Verdict
from backend.messages import SchedulerReady, SchedulerStats
from tests.backend.api.conftest import Backend
from tests.backend.fake_scheduler import ready_message
from tests.backend.scheduler.harness import Harness


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def metrics_of(ready: SchedulerReady, clock: Clock | None = None) -> Metrics:
    return Metrics("m", ready, clock or Clock())


def told(metrics: Metrics) -> dict[str, float]:
    """Value by name and the labels that tell samples of a family apart."""

    def samples() -> Iterator[tuple[str, float]]:
        for family in text_string_to_metric_families(metrics.render().decode()):
            for sample in family.samples:
                rest = [sample.labels[key] for key in ("mode", "phase") if key in sample.labels]
                yield ".".join([sample.name, *rest]), sample.value

    return dict(samples())


def step(metrics: Metrics, now: float, **stats: float) -> None:
    metrics.on_step(StepResult([], []), SchedulerStats(**stats), now)


def test_how_decode_steps_ran_and_what_their_graphs_hold() -> None:
    metrics = metrics_of(msgspec.structs.replace(ready_message(), graph_bytes=3 << 29))
    step(metrics, 1.0, graph_decodes_total=5, plain_decodes_total=2, decodes_by_graph=True)
    found = told(metrics)
    assert found["sglang:cuda_graph_passes_total.decode_cuda_graph"] == 5
    assert found["sglang:cuda_graph_passes_total.decode_none"] == 2
    assert found["sglang:is_cuda_graph"] == 1
    assert found["sglang:graph_memory_usage_gb.decode"] == 1.5
    step(metrics, 2.0, graph_decodes_total=5, plain_decodes_total=3)
    assert told(metrics)["sglang:is_cuda_graph"] == 0


def test_occupancy_is_the_share_of_time_in_steps() -> None:
    clock = Clock()
    metrics = metrics_of(ready_message(), clock)
    for tick in range(1, 201):
        step(metrics, tick / 10, step_seconds_total=tick / 10 * 0.6)
    clock.now = 20.0
    assert told(metrics)["sglang:fwd_occupancy"] == pytest.approx(0.6, rel=0.02)
    clock.now = 40.0
    assert told(metrics)["sglang:fwd_occupancy"] == 0


def test_what_became_of_grammars_and_how_long_they_took() -> None:
    figures = GrammarFigures()
    metrics = Metrics("m", ready_message(), Clock(), figures)
    figures.count(Verdict(seconds=0.003), known=False)
    figures.count(Verdict(seconds=0.003), known=True)
    figures.count(Verdict("no", seconds=0.5), known=False)
    figures.count(Verdict("late", timed_out=True, seconds=8.0), known=False)
    for _ in range(2):  # times are taken once
        found = told(metrics)
        assert found["sglang:num_grammar_total"] == 4
        assert found["sglang:num_grammar_cache_hit_total"] == 1
        assert found["sglang:num_grammar_aborted_total"] == found["sglang:num_grammar_timeout_total"] == 1
        assert found["sglang:grammar_compilation_time_seconds_count"] == 3
        assert found["sglang:grammar_compilation_time_seconds_sum"] == pytest.approx(8.503)


def test_evictions_and_loads_of_a_scheduler_are_timed_also_of_the_one_that_takes_over() -> None:
    metrics = metrics_of(msgspec.structs.replace(ready_message(), free_bytes=5 << 29))
    for life in (1, 2):
        harness = Harness(num_pages=16, host=HostSettings(64, load_min=2))
        for prompt in (range(1, 21), range(21, 41), range(1, 21)):
            harness.add(list(prompt))
            while harness.scheduler.has_work:
                metrics.on_step(
                    StepResult([], []),
                    msgspec.msgpack.decode(msgspec.msgpack.encode(harness.step().stats), type=SchedulerStats),
                    1.0,
                )
        evictions, loads = harness.scheduler.rows.evictions, harness.scheduler.rows.load_backs
        assert evictions.times >= 2
        assert loads.times == 1
        found = told(metrics)
        assert found["sglang:eviction_duration_seconds_count"] == life * evictions.times
        assert found["sglang:eviction_duration_seconds_sum"] >= evictions.seconds > 0
        assert found["sglang:load_back_duration_seconds_count"] == life
        assert found["sglang:load_back_duration_seconds_sum"] >= loads.seconds > 0
        assert found["sglang:startup_available_gpu_memory_gb"] == 2.5
        metrics.restarted(msgspec.structs.replace(ready_message(), free_bytes=5 << 29))


async def test_requests_with_structured_output_are_counted(backend: Backend) -> None:
    for sampling in ({"max_new_tokens": 2}, {"max_new_tokens": 2, "regex": "[a-z]+"}):
        (await backend.http.post("/generate", json={"text": "hello", "sampling_params": sampling})).raise_for_status()
    lines = (await backend.http.get("/metrics")).text.splitlines()
    values = {line.split("{")[0]: float(line.split()[-1]) for line in lines if line.startswith("sglang:num_")}
    assert values["sglang:num_so_requests_total"] == values["sglang:num_grammar_total"] == 1
