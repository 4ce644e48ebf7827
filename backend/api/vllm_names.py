"""The same figures under the names that vLLM's dashboards know."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

NAMES = {
    "sglang:num_running_reqs": "vllm:num_requests_running",
    "sglang:num_queue_reqs": "vllm:num_requests_waiting",
    "sglang:token_usage": "vllm:kv_cache_usage_perc",
    "sglang:num_retracted_requests": "vllm:num_preemptions",
    "sglang:prompt_tokens": "vllm:prompt_tokens",
    "sglang:generation_tokens": "vllm:generation_tokens",
    "sglang:num_requests": "vllm:request_success",
    "sglang:time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "sglang:inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
    "sglang:e2e_request_latency_seconds": "vllm:e2e_request_latency_seconds",
    "sglang:queue_time_seconds": "vllm:request_queue_time_seconds",
}


class VLLMNames(Collector):
    """Repeats what the registry already has; to be registered last."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._collecting = False

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if self._collecting:  # asked by itself below
            return
        self._collecting = True
        try:
            for metric in list(self._registry.collect()):
                if (name := NAMES.get(metric.name)) is not None:
                    yield _renamed(metric, name)
        finally:
            self._collecting = False


def _renamed(metric: Metric, name: str) -> Metric:
    copy = Metric(name, metric.documentation, metric.type)
    copy.samples = [sample._replace(name=name + sample.name.removeprefix(metric.name)) for sample in metric.samples]
    return copy
