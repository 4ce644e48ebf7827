"""Counters and histograms over requests, as the frontend sees them."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter

from backend.api.late_histogram import LateHistogram, Observations
from backend.frontend.output import Update
from backend.frontend.request import RequestState

LABELS = ("model_name", "engine_type")
TTFT_BUCKETS = (0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400)
E2E_BUCKETS = (*TTFT_BUCKETS, 600, 1200, 1800, 2400)
ITL_BUCKETS = (
    *(0.002, 0.004, 0.006, 0.008, 0.010, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08),
    *(0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8),
)
STAGES = ("waiting", "prefill", "decode")
TOKEN_BUCKETS = (1, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


class _Families:
    """Makes metric families in one registry, with the label values that never change already set."""

    def __init__(self, registry: CollectorRegistry, labels: Sequence[str]) -> None:
        self._registry = registry
        self._labels = tuple(labels)

    def counter(self, name: str, text: str, label: str, values: Sequence[str]) -> dict[str, Counter]:
        """One counter for each value of ``label``."""
        family = Counter(f"sglang:{name}", text, (*LABELS, label), registry=self._registry)
        return {value: family.labels(*self._labels, value) for value in values}

    def plain_counter(self, name: str, text: str) -> Counter:
        return Counter(f"sglang:{name}", text, LABELS, registry=self._registry).labels(*self._labels)

    def histogram(
        self, name: str, text: str, buckets: Sequence[float], label: str, values: Sequence[str]
    ) -> dict[str, Observations]:
        """One histogram for each value of ``label``."""
        family = self._family(name, text, buckets, (*LABELS, label))
        return {value: family.labels(*self._labels, value) for value in values}

    def plain_histogram(self, name: str, text: str, buckets: Sequence[float]) -> Observations:
        return self._family(name, text, buckets, LABELS).labels(*self._labels)

    def _family(self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str]) -> LateHistogram:
        family = LateHistogram(f"sglang:{name}", text, buckets, labels)
        self._registry.register(family)
        return family


class RequestMetrics:
    """``labels`` are the values of LABELS; each child is made once, so a token costs no look-up of labels."""

    def __init__(self, registry: CollectorRegistry, labels: Sequence[str]) -> None:
        make = _Families(registry, labels)
        mode = ("is_streaming", ("true", "false"))
        self._requests = make.counter("num_requests", "Finished requests", *mode)
        self._prompt_tokens = make.counter("prompt_tokens", "Prompt tokens", *mode)
        self._generated = make.counter("generation_tokens", "Generated tokens", *mode)
        self._cached = make.counter(
            "cached_tokens", "Prompt tokens found in the cache", "cache_source", ("device", "host")
        )
        self._structured = make.plain_counter("num_so_requests", "Finished requests with structured output")
        self._aborts = make.plain_counter("num_aborted_requests", "Requests that were aborted")
        self._ttft = make.histogram("time_to_first_token_seconds", "Arrival to first token", TTFT_BUCKETS, *mode)
        self._e2e = make.histogram("e2e_request_latency_seconds", "Arrival to last token", E2E_BUCKETS, *mode)
        self._per_token = make.histogram(
            "request_time_per_output_token_seconds", "Mean time of an output token after the first", ITL_BUCKETS, *mode
        )
        self._gap = make.plain_histogram("inter_token_latency_seconds", "Time between tokens", ITL_BUCKETS)
        self._queued = make.plain_histogram("queue_time_seconds", "Arrival to first step", TTFT_BUCKETS)
        self._stages = make.histogram(
            "per_stage_req_latency_seconds", "Time of a request in each stage", TTFT_BUCKETS, "stage", STAGES
        )
        self._prompt_size = make.plain_histogram("prompt_tokens_histogram", "Prompt length", TOKEN_BUCKETS)
        self._uncached_size = make.plain_histogram(
            "uncached_prompt_tokens_histogram", "Prompt tokens that were not in the cache", TOKEN_BUCKETS
        )
        self._output_size = make.plain_histogram("generation_tokens_histogram", "Output length", TOKEN_BUCKETS)

    def moved(self, update: Update) -> None:
        """A step brought tokens to a request, or its end."""
        if update.first:
            self._ttft[_mode(update.state)].observe(update.gap)
        elif update.tokens:
            for _ in range(update.tokens):
                self._gap.observe(update.gap / update.tokens)
        if update.state.finish is not None:
            self._ended(update.state)

    def aborted(self) -> None:
        """A client asked for the end of a request, or left."""
        self._aborts.inc()

    def _ended(self, state: RequestState) -> None:
        if state.finish is not None and state.finish.kind == "abort":
            self.aborted()
            return
        mode = _mode(state)
        self._requests[mode].inc()
        self._structured.inc(state.structured)
        self._prompt_tokens[mode].inc(state.prompt_tokens)
        self._generated[mode].inc(state.completion_tokens)
        self._cached["device"].inc(state.cached_tokens - state.fetched_tokens)
        self._cached["host"].inc(state.fetched_tokens)
        self._prompt_size.observe(state.prompt_tokens)
        self._uncached_size.observe(state.prompt_tokens - state.cached_tokens)
        self._output_size.observe(state.completion_tokens)
        self._observe_stages(state)
        if state.finished_at is not None and state.first_token_at is not None:
            self._e2e[mode].observe(state.finished_at - state.created)
            if state.completion_tokens > 1:
                seconds = state.finished_at - state.first_token_at
                self._per_token[mode].observe(seconds / (state.completion_tokens - 1))

    def _observe_stages(self, state: RequestState) -> None:
        if state.started_at is None:
            return
        self._queued.observe(state.started_at - state.created)
        times = (state.created, state.started_at, state.first_token_at, state.finished_at)
        for stage, begun, ended in zip(STAGES, times, times[1:], strict=False):
            if begun is not None and ended is not None:
                self._stages[stage].observe(ended - begun)


def _mode(state: RequestState) -> str:
    return "true" if state.streaming else "false"
