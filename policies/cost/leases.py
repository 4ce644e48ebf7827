"""Work in flight, as leases: opened when a request is sent, released exactly once whatever becomes of it.

The load of a worker is the sum of its open leases at all times. A second, decaying sum remembers the prompts of the
last seconds, because a worker under paced traffic has nothing in flight whenever somebody looks. And since engines
compute prompts in order, the time since the last first token tells how far the oldest one has come: without it the
queue of the Mooncake conversation trace looks 50 % longer than it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.policy import WorkerLoad

_NO_LOAD = WorkerLoad()
LN2 = math.log(2.0)
LEARN = 0.02  # weight of one lease in the usual size of them


# What a newcomer finds at a worker, whoever sent it there: tokens of prompts without a first token, answers under way,
# tokens of our oldest prompt, and when that came to its turn. A plain tuple, for named ones are slow to take apart.
Ahead = tuple[int, int, int, float]


def decayed(amount: float, elapsed_s: float, half_life_s: float) -> float:
    """What is left of ``amount``."""
    return amount * math.exp(-LN2 * elapsed_s / half_life_s) if amount and elapsed_s > 0.0 else amount


class Standing:
    """A worker's load as of its last event, and kept till the next: what time does to it is left to the reader.

    Nobody changes it. ``recent_tokens`` are those as of ``recent_at``.
    """

    __slots__ = ("ahead", "others_decodes", "others_tokens", "recent_at", "recent_tokens", "requests")

    def __init__(
        self,
        requests: int,
        ahead: Ahead,
        others_tokens: int,
        others_decodes: int,
        recent_tokens: float,
        recent_at: float,
    ) -> None:
        self.requests = requests
        self.ahead = ahead
        self.others_tokens = others_tokens
        self.others_decodes = others_decodes
        self.recent_tokens = recent_tokens
        self.recent_at = recent_at

    @property
    def prefill_tokens(self) -> int:
        """Of our own prompts."""
        return self.ahead[0] - self.others_tokens

    @property
    def decodes(self) -> int:
        """Our own answers under way."""
        return self.ahead[1] - self.others_decodes

    def recent(self, now: float, half_life_s: float) -> float:
        """The recent work, decayed."""
        return decayed(self.recent_tokens, now - self.recent_at, half_life_s)

    def load(self, now: float, half_life_s: float) -> WorkerLoad:
        """What it amounts to ``now``."""
        _, _, head_tokens, turn_at = self.ahead
        return WorkerLoad(
            self.requests,
            self.prefill_tokens,
            self.decodes,
            self.recent(now, half_life_s),
            head_tokens,
            max(0.0, now - turn_at) * 1000.0 if head_tokens else 0.0,
            self.others_tokens,
            self.others_decodes,
        )


class Account:
    """The running sums of one worker. Leases point to it, so those of a forgotten worker settle into nothing."""

    __slots__ = (
        "decodes", "gone", "kept", "others", "prefill_tokens", "prompts", "recent_at", "recent_tokens", "requests",
        "turn_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.prompts: dict[Lease, int] = {}  # without a first token yet, oldest first
        self.turn_at = 0.0  # when the oldest of them came to its turn
        self.gone = False  # the worker was forgotten
        self.requests = 0
        self.prefill_tokens = 0
        self.decodes = 0
        self.others = (0, 0)  # prompt tokens and answers of other routers
        self.recent_tokens = 0.0
        self.recent_at = 0.0
        self.kept: Standing | None = None  # the standing, unless something happened since it was made

    def standing(self) -> Standing:
        if self.kept is None:
            head = next(iter(self.prompts.values())) if self.prompts else 0
            tokens, answers = self.others
            ahead = (self.prefill_tokens + tokens, self.decodes + answers, head, self.turn_at)
            self.kept = Standing(self.requests, ahead, tokens, answers, self.recent_tokens, self.recent_at)
        return self.kept

    def add(self, tokens: int, now: float, half_life_s: float) -> None:
        """``tokens`` more of recent work."""
        self.recent_tokens = decayed(self.recent_tokens, now - self.recent_at, half_life_s) + tokens
        self.recent_at = now
        self.kept = None

    def end_prompt(self, lease: Lease) -> None:
        self.prefill_tokens -= self.prompts.pop(lease)


class Lease:
    """One request on one worker. Every method may be called at any time and in any order."""

    __slots__ = ("_account", "_decoding", "_open", "opened_at", "prefill_tokens", "worker")

    def __init__(self, worker: str, prefill_tokens: int, opened_at: float, account: Account) -> None:
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
        account.kept = None

    @property
    def load(self) -> WorkerLoad:
        """What this lease adds to its worker's load now."""
        if not self._open:
            return WorkerLoad()
        if self._decoding:
            return WorkerLoad(requests=1, decodes=1)
        return WorkerLoad(requests=1, prefill_tokens=self.prefill_tokens)

    @property
    def stray(self) -> bool:
        """Its worker was forgotten: what it shows is of nobody who is there."""
        return self._account.gone

    def first_token(self, now: float) -> float | None:
        """The prompt is done. Returns the time to first token in ms, once: None when told before or released."""
        if not self._open or self._decoding:
            return None
        self._decoding = True
        self._account.end_prompt(self)
        self._account.turn_at = max(now, self._account.turn_at)
        self._account.decodes += 1
        self._account.kept = None
        return (now - self.opened_at) * 1000.0

    def turn_ms(self, now: float) -> float | None:
        """How long its prompt has been the oldest one without a first token; None when it is not."""
        if next(iter(self._account.prompts), None) is not self:
            return None
        return max(0.0, now - self._account.turn_at) * 1000.0

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
        self._account.kept = None
        return True


class LeaseBook:
    """The leases of all workers."""

    def __init__(self, recent_half_life_s: float = 10.0) -> None:
        if recent_half_life_s <= 0:
            raise ValueError(f"recent_half_life_s must be above 0, got {recent_half_life_s}")
        self._half_life_s = recent_half_life_s
        self._usual_tokens = 0.0  # uncached prompt tokens of a lease
        self.forgotten = 0  # how often a worker was: whoever keeps accounts asks for new ones then
        self._accounts: dict[str, Account] = {}

    def open(self, worker: str, prefill_tokens: int, now: float) -> Lease:
        """Book a request with ``prefill_tokens`` uncached prompt tokens, sent to ``worker`` now."""
        if prefill_tokens < 0:
            raise ValueError(f"prefill_tokens must not be negative, got {prefill_tokens}")
        account = self.account(worker)
        account.add(prefill_tokens, now, self._half_life_s)
        self._usual_tokens += LEARN * (prefill_tokens - self._usual_tokens)
        return self.lease(worker, prefill_tokens, now, account)

    def lease(self, worker: str, prefill_tokens: int, now: float, account: Account) -> Lease:
        """Make the lease; a book that tells somebody of changes makes one of its own kind."""
        return Lease(worker, prefill_tokens, now, account)

    def reported(
        self, worker: str, waiting_tokens: int | None, decodes: int, now: float, *, requests: int | None = None
    ) -> None:
        """What the backend says it has to do. What is not ours comes from others, until the next report.

        ``waiting_tokens``: None when it tells requests only: then each one is taken for as long as ours are.
        ``requests``: all that it has. When they are no more than ours, nobody else is there: its clock and its way to
        count differ from ours, and the difference is no work.
        """
        account = self.account(worker)
        account.others, account.kept = (0, 0), None
        known = self.standing(worker, now)  # with those of our other processes
        foreign = None if requests is None else requests - known.requests
        if foreign is not None and foreign <= 0:
            return
        if waiting_tokens is None:
            tokens = max(0, (requests or 0) - decodes) * round(self._usual_tokens)
        else:
            tokens = waiting_tokens
        tokens = max(0, tokens - known.prefill_tokens - known.others_tokens)
        running = max(0, decodes - known.decodes - known.others_decodes)
        account.others = (tokens, running if foreign is None else min(running, foreign))
        account.kept = None

    def unreported(self, worker: str) -> None:
        """The backend does not say any more: nothing is known of others."""
        if (account := self._accounts.get(worker)) is not None:
            account.others, account.kept = (0, 0), None

    def account(self, worker: str) -> Account:
        """What :meth:`standings` takes; good until a worker is forgotten."""
        account = self._accounts.get(worker)
        if account is None:
            account = self._accounts[worker] = Account()
        return account

    def standings(self, workers: Sequence[str], accounts: Sequence[Account], now: float) -> list[Standing]:
        """How all of ``workers`` stand, by their ``accounts``."""
        return [account.kept or account.standing() for account in accounts]

    def standing(self, worker: str, now: float) -> Standing:
        """How ``worker`` stands."""
        (found,) = self.standings([worker], [self.account(worker)], now)
        return found

    def load(self, worker: str, now: float | None = None) -> WorkerLoad:
        """The load of ``worker``; with ``now`` also what changes with time: recent work and the oldest prompt's."""
        account = self._accounts.get(worker)
        if account is None:
            return _NO_LOAD
        if now is None:
            return WorkerLoad(account.requests, account.prefill_tokens, account.decodes)
        return account.standing().load(now, self._half_life_s)

    @property
    def half_life_s(self) -> float:
        """Of recent work."""
        return self._half_life_s

    def forget(self, worker: str) -> None:
        """``worker`` is gone: its open leases stop counting, also if a worker of that name comes back."""
        self.forgotten += 1
        if (account := self._accounts.pop(worker, None)) is not None:
            account.gone = True
