"""Leases whose sums all processes see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.cost.leases import Account, Lease, LeaseBook, Standing
from policies.policy import WorkerLoad
from router.processes.shared_load import SharedLoads

FRESH_SECONDS = 0.0005  # what others have in flight is read again after that long


class SharedLease(Lease):
    """A lease that shows what becomes of it."""

    __slots__ = ("_publish",)

    def __init__(
        self, worker: str, prefill_tokens: int, opened_at: float, account: Account, publish: Callable[[str], None]
    ) -> None:
        super().__init__(worker, prefill_tokens, opened_at, account)
        self._publish = publish

    def first_token(self, now: float) -> float | None:
        ttft_ms = super().first_token(now)
        if ttft_ms is not None:
            self._publish(self.worker)
        return ttft_ms

    def release(self) -> bool:
        released = super().release()
        if released:
            self._publish(self.worker)
        return released


class SharedLeases(LeaseBook):
    """The leases of process ``index``. A load at a point in time includes the work of the others."""

    def __init__(self, shared: SharedLoads, index: int, recent_half_life_s: float = 10.0) -> None:
        super().__init__(recent_half_life_s)
        self._shared = shared
        self._index = index
        self._slots: dict[str, int] = {}
        self._others: list[tuple[float, float, float, float] | None] = []  # by slot; None: they have nothing there
        self._width = 0
        self._read_at = float("-inf")

    def place(self, worker: str, slot: int) -> None:
        """``worker`` came, and its work is written to ``slot`` (-1: to none)."""
        if slot >= 0:
            self._slots[worker] = slot
            self._width = max(self._width, slot + 1)
            self._read_at = float("-inf")

    def open(self, worker: str, prefill_tokens: int, now: float) -> Lease:
        lease = super().open(worker, prefill_tokens, now)
        self.publish(worker)
        if (slot := self._slots.get(worker)) is not None:
            self._shared.write_recent(self._index, slot, super().load(worker, now).recent_tokens, now)
        return lease

    def lease(self, worker: str, prefill_tokens: int, now: float, account: Account) -> Lease:
        return SharedLease(worker, prefill_tokens, now, account, self.publish)

    def publish(self, worker: str) -> None:
        """Show the others what is in flight at ``worker``."""
        if (slot := self._slots.get(worker)) is not None:
            own = super().load(worker)
            self._shared.write(self._index, slot, own.requests, own.prefill_tokens, own.decodes)

    def load(self, worker: str, now: float | None = None) -> WorkerLoad:
        """Without ``now``: this process's own."""
        if now is None:
            return super().load(worker)
        return self.standing(worker, now).load(now, self.half_life_s)

    def standings(self, workers: Sequence[str], accounts: Sequence[Account], now: float) -> list[Standing]:
        self._read(now)
        own = super().standings(workers, accounts, now)
        return [
            self._with_others(each, self._slots.get(worker), now) for worker, each in zip(workers, own, strict=True)
        ]

    def _read(self, now: float) -> None:
        """What the others have in flight, if what is known of it is old."""
        if not 0 <= now - self._read_at < FRESH_SECONDS:
            self._others = self._shared.others(self._index, self._width, now, self.half_life_s)
            self._read_at = now

    def _with_others(self, own: Standing, slot: int | None, now: float) -> Standing:
        others = None if slot is None else self._others[slot]
        if others is None:
            return own
        requests, prefill_tokens, decodes, recent = others
        tokens, answers, head_tokens, turn_at = own.ahead
        return Standing(
            own.requests + int(requests),
            (tokens + int(prefill_tokens), answers + int(decodes), head_tokens, turn_at),
            own.others_tokens + int(prefill_tokens),
            own.others_decodes + int(decodes),
            own.recent(now, self.half_life_s) + recent,
            now,
        )

    def forget(self, worker: str) -> None:
        super().forget(worker)
        slot = self._slots.pop(worker, None)
        if slot is not None:
            self._shared.clear(self._index, slot)
