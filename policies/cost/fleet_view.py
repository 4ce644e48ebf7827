"""The workers of a decision, with what is known of each at its time.

What the books keep of a worker is looked up once for many decisions (:class:`Roster`), and candidates are made only
when somebody asks for one. A fleet of more than :data:`SCANNED` is never looked at as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import overload

from policies.cost.leases import LeaseBook, Standing
from policies.cost.rates import RateBook
from policies.cost.score import Wait, score, wait_of
from policies.policy import Candidate, WorkerSpeed

SCANNED = 64  # candidates up to which all are weighed

Held = Callable[[str], int | None]  # cached tokens of a prompt on a worker, when exactly known


class Roster:
    """Workers that may be chosen, in an order that stays."""

    def __init__(self, workers: Sequence[str], leases: LeaseBook, speeds: RateBook) -> None:
        self.workers = tuple(workers)
        self.index = {worker: index for index, worker in enumerate(self.workers)}
        self._leases = leases
        self._speeds = speeds
        self._look_up()

    def view(self, now: float, held: Held | None = None, holders: Sequence[str] = ()) -> FleetView:
        """The workers as they are ``now``. ``held`` tells what each one has cached of the prompt, ``holders`` who has
        most: a large fleet is not asked one by one.
        """
        if self._forgotten != (self._leases.forgotten, self._speeds.forgotten):
            self._look_up()
        return FleetView(self, now, held, holders=holders)

    def standings(self, now: float, indices: Sequence[int] | None = None) -> list[Standing]:
        """Of all workers, or of some."""
        if indices is None:
            return self._leases.standings(self.workers, self._accounts, now)
        accounts = [self._accounts[index] for index in indices]
        return self._leases.standings([self.workers[index] for index in indices], accounts, now)

    def speeds(self, standings: list[Standing], now: float, indices: Sequence[int] | None = None) -> list[WorkerSpeed]:
        """The same, of those whose ``standings`` are given."""
        lines = self._lines if indices is None else [self._lines[index] for index in indices]
        return self._speeds.speeds(lines, standings, now)

    @property
    def half_life_s(self) -> float:
        return self._leases.half_life_s

    def _look_up(self) -> None:
        self._forgotten = (self._leases.forgotten, self._speeds.forgotten)
        self._accounts = [self._leases.account(worker) for worker in self.workers]
        self._lines = [self._speeds.line(worker) for worker in self.workers]


class FleetView(Sequence[Candidate]):
    """A sequence of candidates. What was looked at is that of its time, also when it is read again later."""

    __slots__ = ("_held", "_now", "_picked", "_roster", "_speeds", "_standings", "holders", "workers")

    def __init__(
        self,
        roster: Roster,
        now: float,
        held: Held | None,
        indices: Sequence[int] | None = None,
        holders: Sequence[str] = (),
    ) -> None:
        self._roster = roster
        self._now = now
        self._held = held
        self.holders = holders
        self.workers = roster.workers if indices is None else tuple([roster.workers[index] for index in indices])
        self._picked: tuple[dict[int, int], FleetView] | None = None
        self._standings: list[Standing] = []
        self._speeds: list[WorkerSpeed] = []
        if len(self.workers) <= SCANNED:
            self._standings = roster.standings(now, indices)
            self._speeds = roster.speeds(self._standings, now, indices)

    def pick(self, indices: Sequence[int]) -> FleetView:
        """Some of the workers of a large fleet."""
        picked = FleetView(self._roster, self._now, self._held, indices)
        self._picked = {index: position for position, index in enumerate(indices)}, picked
        return picked

    def find(self, worker: str) -> int | None:
        """The position of ``worker``."""
        return self._roster.index.get(worker)

    def costs(self, prompt_tokens: int, cached: list[int], delayed_per_token: list[float]) -> list[float]:
        """``score(...).total_ms`` of each worker, evictions apart, in one pass: large fleets spend their time here."""
        now = self._now
        totals: list[float] = []
        for standing, speed, known, delayed in zip(  # noqa: B905 - compiled, the strict form costs thrice as much
            self._standings, self._speeds, cached, delayed_per_token
        ):
            ahead, answers, head_tokens, turn_at = standing.ahead
            ms = speed[0]
            own = prompt_tokens - known
            until = (ahead + own) * ms
            if head_tokens:
                done_ms, head_ms = (now - turn_at) * 1000.0, head_tokens * ms
                until -= done_ms if done_ms < head_ms else head_ms
            totals.append(until * (1.0 + own * delayed) + answers * speed[1])
        return totals

    def waits(self) -> list[Wait]:
        """What a newcomer finds at each worker."""
        return [wait_of(candidate) for candidate in self]

    def tokens_per_ms(self) -> float:
        """What all of them compute together."""
        return sum([1.0 / speed[0] for speed in self._speeds])

    def speed(self, index: int) -> WorkerSpeed:
        return self._speeds[index]

    def held(self) -> list[int | None] | None:
        """What each worker has cached of the prompt, if that is exactly known of any."""
        return None if self._held is None else [self._held(worker) for worker in self.workers]

    def recent(self, indices: Sequence[int]) -> list[float]:
        """Recent work of some workers, decayed."""
        now, half_life_s = self._now, self._roster.half_life_s
        return [self._standings[index].recent(now, half_life_s) for index in indices]

    def requests(self) -> list[int]:
        """Requests in flight at each worker."""
        standings = self._standings or self._roster.standings(self._now)
        return [standing.requests for standing in standings]

    def __len__(self) -> int:
        return len(self.workers)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[Candidate]: ...

    def __getitem__(self, index: int | slice) -> Candidate | list[Candidate]:
        if isinstance(index, slice):
            return [self._candidate(each) for each in range(*index.indices(len(self.workers)))]
        return self._candidate(range(len(self.workers))[index])

    def __iter__(self) -> Iterator[Candidate]:
        return map(self._candidate, range(len(self.workers)))

    def _candidate(self, index: int) -> Candidate:
        if self._standings:
            standing, speed = self._standings[index], self._speeds[index]
        elif self._picked is not None and (position := self._picked[0].get(index)) is not None:
            return self._picked[1][position]
        else:
            standings = self._roster.standings(self._now, [index])
            (standing,), (speed,) = standings, self._roster.speeds(standings, self._now, [index])
        worker = self.workers[index]
        held = None if self._held is None else self._held(worker)
        return Candidate(worker, standing.load(self._now, self._roster.half_life_s), speed, held)


class Listed:
    """Any other sequence of candidates, asked in the same way."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = candidates
        self.holders: Sequence[str] = ()
        self.workers = tuple([candidate.worker for candidate in candidates])

    def pick(self, indices: Sequence[int]) -> Listed:
        return Listed([self._candidates[index] for index in indices])

    def find(self, worker: str) -> int | None:
        return self._index.get(worker)

    def waits(self) -> list[Wait]:
        return [wait_of(candidate) for candidate in self._candidates]

    def costs(self, prompt_tokens: int, cached: Sequence[int], delayed_per_token: Sequence[float]) -> list[float]:
        each = zip(self.waits(), cached, delayed_per_token, strict=True)
        return [score("", wait, prompt_tokens, known, delayed).total_ms for wait, known, delayed in each]

    def tokens_per_ms(self) -> float:
        return sum(1.0 / candidate.speed.prefill_ms_per_token for candidate in self._candidates)

    def speed(self, index: int) -> WorkerSpeed:
        return self._candidates[index].speed

    def held(self) -> list[int | None] | None:
        return [candidate.held for candidate in self._candidates]

    def recent(self, indices: Sequence[int]) -> list[float]:
        return [self._candidates[index].load.recent_tokens for index in indices]

    def requests(self) -> list[int]:
        return [candidate.load.requests for candidate in self._candidates]

    def __len__(self) -> int:
        return len(self.workers)

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self._candidates)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {worker: index for index, worker in enumerate(self.workers)}


def view_of(candidates: Sequence[Candidate]) -> FleetView | Listed:
    return candidates if isinstance(candidates, FleetView) else Listed(candidates)
