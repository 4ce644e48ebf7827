"""Work in flight, as leases: opened when a request is sent, released exactly once whatever becomes of it.

The load of a worker is the sum of its open leases at all times. A second, decaying sum remembers the prompts of the
last seconds, because a worker under paced traffic has nothing in flight whenever somebody looks. And since engines
compute prompts in order, the time since the last first token tells how far the oldest one has come: without it the
queue of the Mooncake conversation trace looks 50 % longer than it is.
"""

from __future__ import annotations

import math

from policies.policy import WorkerLoad

_NO_LOAD = WorkerLoad()


class _Account:
    """The running sums of one worker. Leases point to it, so those of a forgotten worker settle into nothing."""

    __slots__ = ("decodes", "others", "prefill_tokens", "prompts", "recent_at", "recent_tokens", "requests", "turn_at")

    def __init__(self) -> None:
        self.prompts: dict[Lease, int] = {}  # without a first token yet, oldest first
        self.turn_at = 0.0  # when the oldest of them came to its turn
        self.requests = 0
        self.prefill_tokens = 0
        self.decodes = 0
        self.others = (0, 0)  # prompt tokens and answers of other routers
        self.recent_tokens = 0.0
        self.recent_at = 0.0

    def recent(self, now: float, half_life_s: float) -> float:
        return self.recent_tokens * math.exp2(-max(0.0, now - self.recent_at) / half_life_s)

    def end_prompt(self, lease: Lease) -> None:
        self.prefill_tokens -= self.prompts.pop(lease)

    def load(self, now: float, half_life_s: float) -> WorkerLoad:
        head_tokens, head_ms = 0, 0.0
        if self.prompts:
            head_tokens = next(iter(self.prompts.values()))
            head_ms = max(0.0, now - self.turn_at) * 1000.0
        recent = self.recent(now, half_life_s)
        return WorkerLoad(self.requests, self.prefill_tokens, self.decodes, recent, head_tokens, head_ms, *self.others)


class Lease:
    """One request on one worker. Every method may be called at any time and in any order."""

    __slots__ = ("_account", "_decoding", "_open", "opened_at", "prefill_tokens", "worker")

    def __init__(self, worker: str, prefill_tokens: int, opened_at: float, account: _Account) -> None:
        self.worker = worker
        self.prefill_tokens = prefill_tokens
        self.opened_at = opened_at
        self._account = account
        self._open = True
        self._decoding = False
        account.requests += 1
        account.prefill_tokens += prefill_tokens
        if not account.prompts:
            account.turn_at = opened_at
        account.prompts[self] = prefill_tokens

    @property
    def load(self) -> WorkerLoad:
        """What this lease adds to its worker's load now."""
        if not self._open:
            return WorkerLoad()
        if self._decoding:
            return WorkerLoad(requests=1, decodes=1)
        return WorkerLoad(requests=1, prefill_tokens=self.prefill_tokens)

    def first_token(self, now: float) -> float | None:
        """The prompt is done. Returns the time to first token in ms, once: None when told before or released."""
        if not self._open or self._decoding:
            return None
        self._decoding = True
        self._account.end_prompt(self)
        self._account.turn_at = max(now, self._account.turn_at)
        self._account.decodes += 1
        return (now - self.opened_at) * 1000.0

    def release(self) -> bool:
        """The request is over. Returns whether this call released it; further calls change nothing."""
        if not self._open:
            return False
        self._open = False
        self._account.requests -= 1
        if self._decoding:
            self._account.decodes -= 1
        else:
            self._account.end_prompt(self)
        return True


class LeaseBook:
    """The leases of all workers."""

    def __init__(self, recent_half_life_s: float = 10.0) -> None:
        if recent_half_life_s <= 0:
            raise ValueError(f"recent_half_life_s must be above 0, got {recent_half_life_s}")
        self._half_life_s = recent_half_life_s
        self._accounts: dict[str, _Account] = {}

    def open(self, worker: str, prefill_tokens: int, now: float) -> Lease:
        """Book a request with ``prefill_tokens`` uncached prompt tokens, sent to ``worker`` now."""
        if prefill_tokens < 0:
            raise ValueError(f"prefill_tokens must not be negative, got {prefill_tokens}")
        account = self._accounts.setdefault(worker, _Account())
        account.recent_tokens = account.recent(now, self._half_life_s) + prefill_tokens
        account.recent_at = now
        return Lease(worker, prefill_tokens, now, account)

    def reported(self, worker: str, waiting_tokens: int, decodes: int, now: float) -> None:
        """What the backend says it has to do. What is not ours comes from others, until the next report."""
        account = self._accounts.setdefault(worker, _Account())
        own = account.load(now, self._half_life_s)
        account.others = (max(0, waiting_tokens - own.prefill_tokens), max(0, decodes - own.decodes))

    def load(self, worker: str, now: float | None = None) -> WorkerLoad:
        """The load of ``worker``; with ``now`` also what changes with time: recent work and the oldest prompt's."""
        account = self._accounts.get(worker)
        if account is None:
            return _NO_LOAD
        if now is None:
            return WorkerLoad(account.requests, account.prefill_tokens, account.decodes)
        return account.load(now, self._half_life_s)

    def forget(self, worker: str) -> None:
        """``worker`` is gone: its open leases stop counting, also if a worker of that name comes back."""
        self._accounts.pop(worker, None)
