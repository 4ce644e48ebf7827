"""The contract between the router and a placement policy.

A policy is pure: no I/O, no clock (time is an argument), no asyncio. Choosing has no side effect; what was chosen is
told back through :meth:`Policy.record` and :meth:`Policy.observe`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(slots=True)  # frozen ones take a microsecond more to make
class RouteRequest:
    """What placement needs to know of one request. Nobody changes it."""

    text: bytes = b""  # UTF-8 of the conversation as the backend will see it; empty when the body has no prompt
    prompt_tokens: int = 0  # exact when the router tokenised, else an estimate
    model: str = ""
    namespace: str = ""  # LoRA adapter and cache salt: prefixes of different namespaces never match
    routing_key: str = ""  # session key, for sticky and hashing policies
    target: str = ""  # the worker that the client asks for: its position or URL


class WorkerLoad(NamedTuple):
    """Work in flight on one worker, as the router's leases know it. A tuple: one is made per candidate."""

    requests: int = 0  # leases held
    prefill_tokens: int = 0  # uncached prompt tokens sent and not yet answered by a first token
    decodes: int = 0  # leases past their first token
    recent_tokens: float = 0.0  # uncached tokens of the last seconds, decayed: paced traffic has nothing in flight
    head_tokens: int = 0  # the oldest prompt in ``prefill_tokens``, the one being computed
    head_ms: float = 0.0  # how long it has been computed
    others_tokens: int = 0  # prompt tokens waiting there that others sent, as the backend last told
    others_decodes: int = 0

    def waiting_tokens(self, ms_per_token: float) -> float:
        """Prompt tokens ahead of a newcomer: all, less what must be done of the oldest prompt by now."""
        done = min(float(self.head_tokens), self.head_ms / ms_per_token)
        return self.prefill_tokens + self.others_tokens - done

    @property
    def running(self) -> int:
        """Answers under way, whoever asked for them."""
        return self.decodes + self.others_decodes


class WorkerSpeed(NamedTuple):
    """Learned or assumed speed of one worker."""

    prefill_ms_per_token: float = 0.1
    decode_ms_per_step: float = 1.0  # what one running decode adds to a newcomer's time to first token


class Candidate(NamedTuple):
    """A worker that may be chosen now (healthy, breaker closed, right model)."""

    worker: str
    load: WorkerLoad = WorkerLoad()
    speed: WorkerSpeed = WorkerSpeed()
    held: int | None = None  # cached tokens of this prompt when known exactly (KV events); None: the policy's own guess


class Score(NamedTuple):
    """The cost of one candidate in milliseconds: three terms to this request's first token, two for everybody else."""

    worker: str
    cached_tokens: int = 0
    queue_ms: float = 0.0  # prompts ahead
    prefill_ms: float = 0.0  # its own uncached tokens
    decode_ms: float = 0.0  # answers that share each step with it
    later_ms: float = 0.0  # what later requests wait for its uncached tokens
    evict_ms: float = 0.0  # what recomputing the prefixes costs that it pushes out of a full cache

    @property
    def ttft_ms(self) -> float:
        """Estimated time to first token."""
        return self.queue_ms + self.prefill_ms + self.decode_ms

    @property
    def total_ms(self) -> float:
        """What is compared."""
        return self.ttft_ms + self.later_ms + self.evict_ms


class Decision(NamedTuple):
    """A choice and why it was made. A tuple: one is made per request."""

    worker: str
    cached_tokens: int = 0  # predicted prefix hit on the chosen worker
    reason: str = ""  # the branch taken, a bounded set of words: also a metric label
    scores: Sequence[Score] = ()  # of the candidates that were weighed; worked out when first read


class Policy(ABC):
    """Chooses a worker for a request."""

    name: ClassVar[str]

    @abstractmethod
    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Decision:
        """Pick one of ``candidates`` (never empty). ``now`` is in seconds on any monotonic clock. No side effect."""

    def record(self, request: RouteRequest, worker: str, now: float) -> None:  # noqa: B027
        """The request was sent to ``worker``, which will hold its prefix."""

    def observe(self, request: RouteRequest, worker: str, cached_tokens: int, now: float) -> None:  # noqa: B027
        """``worker`` reported how many prompt tokens it had cached: trim what over-promised."""

    def felt(self, request: RouteRequest, worker: str, computed_tokens: float, alone: bool) -> None:  # noqa: B027
        """The first token came and did not say what was cached; its time was enough to compute so many prompt tokens.

        ``alone``: nothing was ahead of the prompt when it was sent.
        """

    def capacity(self, worker: str, kv_tokens: int) -> None:  # noqa: B027
        """``worker`` said how many tokens its cache holds."""

    def forget(self, worker: str) -> None:  # noqa: B027
        """``worker`` is gone, or restarted with an empty cache."""

    def stats(self) -> dict[str, float]:
        """Gauges for ``/metrics``, by short name (for example ``prefix_tree_bytes``)."""
        return {}
