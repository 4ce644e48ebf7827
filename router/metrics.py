"""What the router counts. Names known from SGLang's router stay (``smg_``); the rest is ``warmlane_``.

Label values are bounded: routes and methods from fixed sets, models from what the workers report, workers from the
registry, whose series go when the worker goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, generate_latest

from policies.policy import Decision
from router.body import INFERENCE_ROUTES
from router.tally import Count, Counter, Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 120, 300, 600)
OTHER = "other"
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
_MAX_REASONS = 64
_STATUS = {status: str(status) for status in range(100, 600)}
_PATHS = {path: path for path in INFERENCE_ROUTES}  # label values


class WorkerSeries:
    """The counters of one worker. They may be used after the worker has gone: then nobody reads them."""

    def __init__(self, metrics: Metrics, url: str) -> None:
        self._metrics = metrics
        self._url = url
        self._outcomes: dict[str, Count] = {}
        self._turns: set[str] = set()
        self._gone = False
        self.predicted = metrics.predicted.labels(url)
        self.actual = metrics.actual.labels(url)
        self.prompt = metrics.prompt.labels(url)

    def outcome(self, outcome: str) -> None:
        """Count an attempt: ``ok``, ``client_error``, ``cut``, ``client_gone`` or a failure's name."""
        if self._gone:
            return
        series = self._outcomes.get(outcome)
        if series is None:
            series = self._outcomes[outcome] = self._metrics.worker_outcomes.labels(self._url, outcome)
        series.value += 1

    def breaker(self, state: str) -> None:
        """Count a turn of the worker's breaker to ``state``."""
        if not self._gone:
            self._turns.add(state)
            self._metrics.breaker_turns.labels(self._url, state).inc()

    def drop(self) -> None:
        """Remove the series from the exposition."""
        self._gone = True
        for state in self._turns:
            self._metrics.breaker_turns.remove(self._url, state)
        for outcome in self._outcomes:
            self._metrics.worker_outcomes.remove(self._url, outcome)
        for counter in (self._metrics.predicted, self._metrics.actual, self._metrics.prompt):
            counter.remove(self._url)


class Metrics:
    """All series of one router. ``knows_model`` says which models may be label values."""

    def __init__(self, knows_model: Callable[[str], bool], buckets: Sequence[float] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self._knows_model = knows_model
        self._reasons: set[str] = set()
        self._workers: dict[str, WorkerSeries] = {}
        times = tuple(buckets) or BUCKETS
        self.requests = Counter("smg_http_requests_total", "Requests received", ["method", "path"], registry=registry)
        self.responses = Counter(
            "smg_http_responses_total", "Answers given; 499: the client left", ["status_code"], registry=registry
        )
        self.duration = Histogram(
            "smg_http_request_duration_seconds", "Whole request", ["path"], buckets=times, registry=registry
        )
        self.model_requests = Counter(
            "smg_router_requests_total", "Inference requests", ["model", "endpoint", "streaming"], registry=registry
        )
        self.ttft = Histogram(
            "smg_router_ttft_seconds", "From arrival to the first token", ["model"], buckets=times, registry=registry
        )
        self.retries = Counter("smg_router_retries_total", "Attempts that were repeated", ["reason"], registry=registry)
        self.worker_restarts = Counter(
            "warmlane_worker_restarts_total", "Restarts of workers that were noticed", registry=registry
        )
        self.shed = Counter(
            "warmlane_requests_shed_total", "Requests that admission turned away", ["reason"], registry=registry
        )
        self.resumed = Counter(
            "warmlane_streams_resumed_total", "Cut streams that went on at another worker", registry=registry
        )
        self.retries_denied = Counter(
            "warmlane_retries_denied_total", "Retries that the retry budget did not allow", registry=registry
        )
        self.breaker_turns = Counter(
            "smg_worker_cb_transitions_total", "Turns of a worker's breaker", ["worker", "to"], registry=registry
        )
        self.worker_outcomes = Counter(
            "warmlane_worker_attempts_total", "Attempts by outcome", ["worker", "outcome"], registry=registry
        )
        self.decisions = Counter(
            "warmlane_policy_decisions_total", "Placements by reason", ["policy", "reason"], registry=registry
        )
        self.predicted = Counter(
            "warmlane_predicted_cached_tokens_total",
            "Cached tokens that placement expected, of answers that told theirs",
            ["worker"],
            registry=registry,
        )
        self.actual = Counter(
            "warmlane_actual_cached_tokens_total", "Cached tokens that answers told", ["worker"], registry=registry
        )
        self.prompt = Counter(
            "warmlane_prompt_tokens_total", "Prompt tokens of answers that told them", ["worker"], registry=registry
        )

    def worker_added(self, url: str) -> None:
        self._workers[url] = WorkerSeries(self, url)

    def worker_removed(self, url: str) -> None:
        """Drop every series of this worker."""
        if (series := self._workers.pop(url, None)) is not None:
            series.drop()

    def worker(self, url: str) -> WorkerSeries | None:
        return self._workers.get(url)

    def arrived(self, method: str, path: str) -> None:
        self.requests.count((method if method in _METHODS else OTHER, _PATHS.get(path, OTHER)))

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.responses.count((_STATUS.get(status) or str(status),))
        self.duration.observe((_PATHS.get(path, OTHER),), seconds)

    def asked(self, model: str, path: str, stream: bool) -> None:
        """An inference request."""
        streaming = "true" if stream else "false"
        self.model_requests.count((self.model_label(model), _PATHS.get(path, OTHER), streaming))

    def first_token(self, model: str, seconds: float) -> None:
        """The first token came so long after the request."""
        self.ttft.observe((self.model_label(model),), seconds)

    def refused(self, status: int) -> None:
        """A request was answered before it was read."""
        self.responses.count((str(status),))

    def decided(self, policy: str, decision: Decision) -> None:
        reason = decision.reason or "none"
        if reason not in self._reasons:
            if len(self._reasons) >= _MAX_REASONS:
                reason = OTHER
            self._reasons.add(reason)
        self.decisions.count((policy, reason))

    def model_label(self, model: str) -> str:
        """Any of the known models, or "default" for none named where there are several."""
        return model if self._knows_model(model) else OTHER if model else "default"

    def text(self) -> bytes:
        """The exposition of everything."""
        return generate_latest(self.registry)
