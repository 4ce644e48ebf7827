"""What makes placement see more and say why: exact caches, token parity, closed loop, explanations, traces, shadow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from policies import Policy, RateBook, make_policy
from policies.cost.line import SLOWEST
from policies.prefix.block_index import BlockIndex
from router.config import RouterConfig
from router.dossier import Watcher
from router.exact import ExactPrefixes
from router.exchange import now_seconds
from router.explain import ExplainRing
from router.exposition import Gauges
from router.fleet.kv_events import KVEvents
from router.fleet.load_polls import LoadPolls
from router.fleet.told import MOST
from router.fleet.vitals import Fetcher
from router.fleet.worker import Worker
from router.metrics import Metrics
from router.parity import ParityProbe
from router.prompt_text import PromptText
from router.shadow import Shadow
from router.shortfall import ClosedLoop
from router.tokenise import TokenPool
from router.trace import TraceRecorder

Row = tuple[str, str, dict[str, str], float]


class Insight:
    """Owns these parts, which learn here of workers that come and go. ``OSError``: the trace cannot be written."""

    def __init__(
        self,
        config: RouterConfig,
        fetcher: Fetcher,
        prompt_text: PromptText,
        metrics: Metrics,
        policy: Policy,
        speeds: RateBook,
        loads: LoadPolls,
    ) -> None:
        self._policy = policy
        self._speeds = speeds
        self._loads = loads
        self._kv_tokens: dict[str, int] = {}
        self.ring = ExplainRing()
        self._trace = TraceRecorder(Path(config.record_trace)) if config.record_trace else None
        self._events = KVEvents(fetcher, BlockIndex(config.prefix_index_bytes), metrics.registry, self._told)
        self._pool = TokenPool(prompt_text.encode)
        self._parity = ParityProbe(fetcher, prompt_text)
        self._loop = ClosedLoop(metrics.registry)
        self.exact = ExactPrefixes(self._events, self._pool, self._parity.same_tokens)
        self._shadow = _shadow(config, metrics)
        metrics.registry.register(Gauges(self._rows))

    @property
    def watchers(self) -> list[Watcher]:
        found: list[Watcher | None] = [self.ring, self._loop, self._trace, self._shadow]
        return [watcher for watcher in found if watcher is not None]

    def worker_came(self, worker: Worker) -> None:
        url = worker.url
        notes: dict[str, Callable[[], Any]] = {
            "token_parity": lambda: self._parity.state(url).value,
            "kv_events": lambda: self._events.state(url),
            "loads": lambda: self._loads.state(worker),
        }
        worker.notes.update(notes)
        self._events.watch(worker)
        self._parity.watch(worker)
        self._loads.watch(worker)

    def worker_went(self, worker: Worker) -> None:
        self._events.unwatch(worker)
        self._parity.unwatch(worker)
        self._loads.unwatch(worker)
        self._loop.forget(worker.url)
        self._kv_tokens.pop(worker.url, None)
        if self._shadow is not None:
            self._shadow.forget(worker.url)

    def worker_restarted(self, worker: Worker) -> None:
        self._events.restarted(worker)
        self._parity.restarted(worker)
        if self._shadow is not None:
            self._shadow.forget(worker.url)

    def worker_emptied(self, url: str) -> None:
        """Its cache was flushed, and is as large as before."""
        self._policy.forget(url)
        if self._shadow is not None:
            self._shadow.forget(url)
        if (kv_tokens := self._kv_tokens.get(url)) is not None:
            self._holds(url, kv_tokens)

    def _holds(self, url: str, kv_tokens: int) -> None:
        self._kv_tokens[url] = kv_tokens
        self._policy.capacity(url, kv_tokens)
        if self._shadow is not None:
            self._shadow.capacity(url, kv_tokens)

    def _told(self, worker: Worker, info: Mapping[str, Any]) -> None:
        """``/server_info`` of a worker: the size of its cache, for policies that weigh evictions, and its speed."""
        kv_tokens = info.get("max_total_num_tokens")
        if isinstance(kv_tokens, int) and 0 < kv_tokens <= MOST:
            self._holds(worker.url, kv_tokens)
        speed = info.get("measured_speed")
        ms = speed.get("prefill_ms_per_token") if isinstance(speed, dict) else None
        if isinstance(ms, float) and 0 < ms < SLOWEST:
            self._speeds.seed(worker.url, ms, now_seconds())

    async def close(self) -> None:
        await self._events.close()
        await self._parity.close()
        await self._loads.close()
        self._pool.close()
        if self._trace is not None:
            self._trace.close()

    def _rows(self) -> Iterable[Row]:
        yield from self._events.rows()
        yield "warmlane_tokenise_refused", "Prompts that found the tokeniser busy", {}, self._pool.refused
        yield "warmlane_explain_kept", "Requests that can be explained", {}, len(self.ring)
        if self._trace is not None:
            yield "warmlane_trace_lost_lines", "Lines of the trace that could not be written", {}, self._trace.lost


def _shadow(config: RouterConfig, metrics: Metrics) -> Shadow | None:
    if config.shadow_policy is None:
        return None
    policy = make_policy(
        config.shadow_policy, prefix_bytes=config.prefix_bytes, seed=config.seed, options=config.policy_options
    )
    return Shadow(policy, metrics.registry)
