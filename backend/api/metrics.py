"""Prometheus metrics under the names that SGLang's dashboards know. Gauges are read when somebody asks, not kept up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.api.cache_times import CacheTimes
from backend.api.gauges import GIGABYTE, Gauge, Speed, gauges
from backend.api.grammar_metrics import GrammarMetrics
from backend.api.measured import MeasuredSpeed
from backend.api.rates import RecentRate
from backend.api.request_metrics import LABELS, RequestMetrics
from backend.api.vllm_names import VLLMNames
from backend.frontend.output import StepResult
from backend.frontend.request import RequestState
from backend.grammar import GrammarFigures
from backend.messages import SchedulerReady, SchedulerStats

SCHEDULER_LABELS = (*LABELS, "tp_rank", "pp_rank", "moe_ep_rank")


class Metrics:
    """Owns the registry. The frontend reports to it as its observer."""

    def __init__(
        self,
        model_name: str,
        ready: SchedulerReady,
        clock: Callable[[], float] = time.perf_counter,
        grammars: GrammarFigures | None = None,
    ) -> None:
        self.stats = SchedulerStats(total_tokens=ready.max_total_tokens)
        self.restarts = 0  # of the scheduler
        self.measured = MeasuredSpeed()
        self._labels = (model_name, "unified")
        self._clock = clock
        self._ready = ready
        self._decode_rate, self._prefill_rate, self._step_time = RecentRate(), RecentRate(), RecentRate()
        self._registry = CollectorRegistry()
        self._registry.register(_SchedulerCollector(self))
        self._requests = RequestMetrics(self._registry, self._labels)
        self._registry.register(GrammarMetrics(grammars or GrammarFigures(), SCHEDULER_LABELS, self.labels))
        self._cache_times = CacheTimes(SCHEDULER_LABELS, self.labels)
        self._registry.register(self._cache_times)
        self._registry.register(VLLMNames(self._registry))

    def restarted(self, ready: SchedulerReady) -> None:
        """Another scheduler takes over, which counts from zero; what requests brought stays counted."""
        self.restarts += 1
        self.stats = SchedulerStats(total_tokens=ready.max_total_tokens)
        self._ready = ready
        self._cache_times.restarted()
        self._decode_rate, self._prefill_rate, self._step_time = RecentRate(), RecentRate(), RecentRate()

    @property
    def labels(self) -> tuple[str, ...]:
        """Values of SCHEDULER_LABELS."""
        return (*self._labels, "0", "0", "0")

    def on_step(self, result: StepResult, stats: SchedulerStats, now: float) -> None:
        self.stats = stats
        self._decode_rate.record(stats.decode_tokens_total, now)
        self._prefill_rate.record(stats.prefill_tokens_total, now)
        self._step_time.record(stats.step_seconds_total, now)
        self.measured.record(stats)
        self._cache_times.record(stats)
        for update in result.updates:
            if update.state.log_metrics:
                self._requests.moved(update)

    def on_abort(self, state: RequestState) -> None:
        if state.log_metrics:
            self._requests.aborted()

    @property
    def graph_bytes(self) -> int:
        """Memory of the captured decode steps."""
        return self._ready.graph_bytes

    def decode_throughput(self) -> float:
        """Generated tokens a second over the last 10 seconds."""
        return self._decode_rate.value(self._clock())

    def gauges(self) -> list[Gauge]:
        now = self._clock()
        rates = (rate.value(now) for rate in (self._decode_rate, self._prefill_rate, self._step_time))
        return gauges(self.stats, self._ready, Speed(*rates))

    def render(self) -> bytes:
        """The text exposition of everything."""
        return generate_latest(self._registry)

    def render_plain_gauges(self) -> bytes:
        """The gauges without labels, for scripts that look a name up at the start of a line."""
        registry = CollectorRegistry()
        registry.register(_PlainGauges(self.gauges()))
        return generate_latest(registry)


class _SchedulerCollector(Collector):
    """Gauges and counters of the scheduler as of now."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        for name, text, value in self._metrics.gauges():
            gauge = GaugeMetricFamily(f"sglang:{name}", text, labels=SCHEDULER_LABELS)
            gauge.add_metric(self._metrics.labels, value)
            yield gauge
        stats = self._metrics.stats
        yield self._counter("num_retracted_requests", "Requests put back into the queue", "", stats.retracted_total)
        yield self._counter("evicted_tokens", "Tokens evicted from the prefix cache", "", stats.evicted_tokens_total)
        yield self._counter("load_back_tokens", "Tokens fetched from the host tier", "", stats.loaded_tokens_total)
        computed = self._counter("realtime_tokens", "Tokens computed", "prefill_compute", stats.prefill_tokens_total)
        computed.add_metric((*self._metrics.labels, "prefill_cache"), stats.cached_prompt_tokens_total)
        computed.add_metric((*self._metrics.labels, "decode"), stats.decode_tokens_total)
        yield computed
        yield from self._graphs(stats)
        yield from self._process(stats)

    def _graphs(self, stats: SchedulerStats) -> Iterator[Metric]:
        """How decode steps ran, and what their graphs hold."""
        passes = self._counter("cuda_graph_passes", "Decode steps", "decode_cuda_graph", stats.graph_decodes_total)
        passes.add_metric((*self._metrics.labels, "decode_none"), stats.plain_decodes_total)
        yield passes
        memory = GaugeMetricFamily(
            "sglang:graph_memory_usage_gb", "Memory of CUDA graphs in GiB", labels=(*SCHEDULER_LABELS, "phase")
        )
        memory.add_metric((*self._metrics.labels, "decode"), self._metrics.graph_bytes / GIGABYTE)
        yield memory

    def _process(self, stats: SchedulerStats) -> Iterator[Metric]:
        """What the scheduler's process did with its time."""
        yield self._counter("num_retracted_input_tokens", "Their prompts", "", stats.retracted_input_tokens_total)
        yield self._counter("num_retracted_output_tokens", "Their outputs", "", stats.retracted_output_tokens_total)
        yield self._counter("scheduler_idle_seconds", "Nothing to do", "", stats.idle_seconds_total)
        yield self._counter("scheduler_process_cpu_seconds", "CPU of the scheduler", "", stats.cpu_seconds_total)
        forward = self._family("forward_execution_seconds", "Time in steps", ("category",))
        forward.add_metric((*self._metrics.labels, "step"), stats.step_seconds_total)
        yield forward
        yield self._counter(
            "scheduler_restarts", "Schedulers that died and were started anew", "", self._metrics.restarts
        )

    def _counter(self, name: str, text: str, mode: str, value: float) -> CounterMetricFamily:
        names, values = (("mode",), (mode,)) if mode else ((), ())
        counter = self._family(name, text, names)
        counter.add_metric((*self._metrics.labels, *values), value)
        return counter

    def _family(self, name: str, text: str, more: tuple[str, ...]) -> CounterMetricFamily:
        return CounterMetricFamily(f"sglang:{name}", text, labels=(*SCHEDULER_LABELS, *more))


class _PlainGauges(Collector):
    def __init__(self, rows: list[Gauge]) -> None:
        self._rows = rows

    def collect(self) -> Iterator[Metric]:
        for name, text, value in self._rows:
            yield GaugeMetricFamily(f"sglang:{name}", text, value=value)
