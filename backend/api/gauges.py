"""The gauges of ``/metrics`` and ``/v1/loads``, derived from the scheduler's last word."""

from __future__ import annotations

from typing import NamedTuple

from backend.messages import SchedulerReady, SchedulerStats

GIGABYTE = 1 << 30


class Gauge(NamedTuple):
    name: str  # without the prefix "sglang:"
    help: str
    value: float


def token_usage(stats: SchedulerStats) -> float:
    """Share of the KV room that running requests hold."""
    return stats.used_tokens / stats.total_tokens if stats.total_tokens else 0.0


def cache_hit_rate(stats: SchedulerStats) -> float:
    """Share of all prompt tokens so far that were found in the prefix cache."""
    return stats.cached_prompt_tokens_total / stats.prompt_tokens_total if stats.prompt_tokens_total else 0.0


def utilization(stats: SchedulerStats, ready: SchedulerReady) -> float:
    """How full the server is: of its KV room, that of windows, or of its running slots, whichever is fullest."""
    slots = stats.running / ready.max_running_requests if ready.max_running_requests else 0.0
    return max(token_usage(stats), window_usage(stats), slots)


def window_usage(stats: SchedulerStats) -> float:
    """Share of the room of layers with a window that running requests hold; 0 where those have none of their own."""
    return stats.window_used_tokens / stats.window_total_tokens if stats.window_total_tokens else 0.0


class Speed(NamedTuple):
    """Of the last seconds."""

    decode: float = 0.0  # tokens a second
    prefill: float = 0.0
    occupancy: float = 0.0  # share of the time that went into steps


def gauges(stats: SchedulerStats, ready: SchedulerReady, speed: Speed) -> list[Gauge]:
    """All gauges."""
    return [*_load(stats, ready), *_speed(stats, speed), *_room(stats, ready), *_window(stats)]


def _load(stats: SchedulerStats, ready: SchedulerReady) -> list[Gauge]:
    return [
        Gauge("num_running_reqs", "Requests that are being computed", stats.running),
        Gauge("num_queue_reqs", "Requests that wait for their first step", stats.waiting),
        Gauge("num_waiting_reqs", "The same as num_queue_reqs", stats.waiting),
        Gauge("num_retracted_reqs", "Requests put back into the queue since the start", stats.retracted_total),
        Gauge("num_grammar_queue_reqs", "Requests that wait for their grammar", stats.waiting_for_grammars),
        Gauge("num_paused_reqs", "Requests that stand still (/pause_generation)", _paused(stats)),
        Gauge("decode_sum_seq_lens", "Tokens of the running requests, about once a second", stats.decode_sum_seq_lens),
        Gauge("num_used_tokens", "Tokens of the KV room held by running requests", stats.used_tokens),
        Gauge("token_usage", "Share of the KV room held by running requests", token_usage(stats)),
        Gauge("full_token_usage", "The same as token_usage", token_usage(stats)),
        Gauge("utilization", "How full the server is: KV room or running slots", utilization(stats, ready)),
    ]


def _speed(stats: SchedulerStats, speed: Speed) -> list[Gauge]:
    return [
        Gauge("cache_hit_rate", "Share of all prompt tokens found in the prefix cache", cache_hit_rate(stats)),
        Gauge("gen_throughput", "The same as decode_throughput", speed.decode),
        Gauge("decode_throughput", "Generated tokens per second over the last 10 seconds", speed.decode),
        Gauge("prefill_throughput", "Computed prompt tokens per second over the last 10 seconds", speed.prefill),
        Gauge("fwd_occupancy", "Share of the last 10 seconds that went into steps", speed.occupancy),
        Gauge("is_cuda_graph", "Whether the last decode step replayed a CUDA graph", stats.decodes_by_graph),
        Gauge("new_token_ratio", "Share of the allowed output that admission expects", stats.new_token_ratio),
    ]


def _window(stats: SchedulerStats) -> list[Gauge]:
    """Of layers with a sliding window, where those have room of their own; else 0."""
    total, used, cached = stats.window_total_tokens, stats.window_used_tokens, stats.window_cached_tokens
    return [
        Gauge("swa_token_usage", "Share of the room of sliding windows held by running requests", window_usage(stats)),
        Gauge("swa_used_tokens", "Room of sliding windows held by running requests, in tokens", used),
        Gauge("swa_evictable_tokens", "Room of sliding windows held by the prefix cache alone, in tokens", cached),
        Gauge("swa_available_tokens", "Free room of sliding windows, in tokens", total - used - cached),
    ]


def _room(stats: SchedulerStats, ready: SchedulerReady) -> list[Gauge]:
    return [
        Gauge("kv_used_tokens", "KV room held by running requests, in tokens", stats.used_tokens),
        Gauge("kv_evictable_tokens", "KV room held by the prefix cache alone, in tokens", stats.cached_tokens),
        Gauge("kv_available_tokens", "Free KV room, in tokens", _free_tokens(stats)),
        Gauge("max_total_num_tokens", "KV room in tokens", ready.max_total_tokens),
        Gauge("max_running_requests", "Most requests computed at once", ready.max_running_requests),
        Gauge("hicache_host_used_tokens", "Tokens in the host tier of the prefix cache", stats.host_used_tokens),
        Gauge("hicache_host_total_tokens", "Tokens that the host tier may hold", ready.host_total_tokens),
        Gauge("page_size", "Tokens of one page", ready.page_size),
        Gauge("num_pages", "Pages of the KV room", ready.max_total_tokens // max(ready.page_size, 1)),
        Gauge("context_len", "Most tokens of one request, prompt and output", ready.context_length),
        Gauge("weight_memory_usage_gb", "Memory of the weights in GiB", ready.weight_bytes / GIGABYTE),
        Gauge("kv_cache_memory_usage_gb", "Memory of the KV room in GiB", ready.kv_cache_bytes / GIGABYTE),
        Gauge("startup_available_gpu_memory_gb", "GPU memory left after the start in GiB", ready.free_bytes / GIGABYTE),
    ]


def _paused(stats: SchedulerStats) -> int:
    return stats.running + stats.waiting if stats.paused else 0


def _free_tokens(stats: SchedulerStats) -> int:
    return stats.total_tokens - stats.used_tokens - stats.cached_tokens
