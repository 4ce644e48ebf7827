"""A silent worker told from a slow one: while a first byte is outstanding, the worker is probed.

A short time limit for first bytes would cut long prefills, which are legitimate. So a request that waits longer than
usual only makes the router ask its worker how it is. Two questions in a row without an answer, and no first byte for
anybody meanwhile, make the worker silent: the requests that wait for it go elsewhere.

Time is an argument, in seconds on any monotonic clock; :mod:`router.silence_probes` asks the questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

STRIKES = 2  # questions in a row without an answer


def _nothing() -> None:
    """There is nothing to give up yet."""


class Depth(Enum):
    """What a probe asks."""

    HEALTH = auto()  # does the process answer?
    GENERATE = auto()  # does a token come out?


@dataclass(slots=True, eq=False)
class Wait:
    """One request that waits for its first byte since ``began``.

    ``patience``: seconds after which the worker must also show that tokens come out; None: never.
    """

    worker: str
    began: float
    patience: float | None
    give_up: Callable[[], None]  # does nothing until the request is on its way

    def can_end(self, give_up: Callable[[], None]) -> None:
        """The request is on its way, and ``give_up`` ends it."""
        self.give_up = give_up


@dataclass(slots=True)
class _Quiet:
    """What is known of a worker that somebody waits for."""

    waits: dict[Wait, None] = field(default_factory=dict)  # oldest first
    asking: Depth | None = None
    asked_at: float = 0.0
    ask_again_at: float = 0.0
    strikes: dict[Depth, int] = field(default_factory=dict)  # usually none

    @property
    def suspect(self) -> bool:
        return bool(self.strikes)

    def alive(self, depth: Depth) -> None:
        """It answered a question, or sent a first byte; tokens prove more than health does."""
        if self.strikes:
            self.strikes.pop(Depth.HEALTH, None)
            if depth is Depth.GENERATE:
                self.strikes.clear()


class Silence:
    """The waits of all workers. ``after``: seconds without a first byte until a worker is asked, and between questions.

    It is cheap where nothing is wrong: a wait is put into a dictionary and taken out of it.
    """

    def __init__(self, after: float) -> None:
        self.after = after
        self._quiet: dict[str, _Quiet] = {}

    def begin(self, worker: str, now: float, patience: float | None, give_up: Callable[[], None] = _nothing) -> Wait:
        """A request was sent; ``give_up`` is called at most once, when its worker is found silent."""
        wait = Wait(worker, now, patience, give_up)
        quiet = self._quiet.get(worker)
        if quiet is None:
            quiet = self._quiet[worker] = _Quiet()
        quiet.waits[wait] = None
        return wait

    def end(self, wait: Wait, answered: bool) -> None:
        """The first byte came (``answered``), or the request is over for another reason. May be called again."""
        quiet = self._quiet.get(wait.worker)
        if quiet is None or wait not in quiet.waits:
            return
        del quiet.waits[wait]
        if answered:
            quiet.alive(Depth.GENERATE)
        if not quiet.waits and quiet.asking is None and not quiet.suspect:
            del self._quiet[wait.worker]

    def due(self, now: float) -> list[tuple[str, Depth]]:
        """Workers that have to be asked now. Each one is named once until :meth:`told` is called for it."""
        questions: list[tuple[str, Depth]] = []
        for worker, quiet in self._quiet.items():
            oldest = next(iter(quiet.waits), None)
            if oldest is None or quiet.asking is not None or now < max(oldest.began + self.after, quiet.ask_again_at):
                continue
            impatient = oldest.patience is not None and now >= oldest.began + oldest.patience
            quiet.asking = Depth.GENERATE if impatient else Depth.HEALTH
            quiet.asked_at = now
            questions.append((worker, quiet.asking))
        return questions

    def told(self, worker: str, well: bool | None, now: float) -> list[Wait]:
        """How ``worker`` answered the question; None: the question proves nothing, and is asked again.

        Returns the waits that were given up.
        """
        quiet = self._quiet.get(worker)
        if quiet is None or quiet.asking is None:
            return []
        depth, quiet.asking = quiet.asking, None
        if well:
            quiet.alive(depth)
        elif well is not None:
            quiet.strikes[depth] = quiet.strikes.get(depth, 0) + 1
        quiet.ask_again_at = now + self.after if well else now
        given_up: list[Wait] = []
        if well is False and quiet.strikes.get(depth, 0) >= STRIKES:
            given_up = [wait for wait in quiet.waits if _lost(wait, depth, quiet, now)]
            quiet.strikes[depth] = STRIKES - 1  # until it says something, the next unanswered question is enough
        for wait in given_up:
            del quiet.waits[wait]
        if not quiet.waits and not quiet.suspect:
            del self._quiet[worker]
        for wait in given_up:
            wait.give_up()
        return given_up

    def forget(self, worker: str) -> None:
        """The worker went; requests that wait for it go on waiting, unwatched."""
        self._quiet.pop(worker, None)


def _lost(wait: Wait, depth: Depth, quiet: _Quiet, now: float) -> bool:
    """Only those that waited before the last unanswered question; of a worker without tokens, the impatient ones."""
    if wait.began > quiet.asked_at:
        return False
    return depth is Depth.HEALTH or (wait.patience is not None and now >= wait.began + wait.patience)
