"""The straight way: a request whose worker has an idle connection and answers as expected needs no task of its own.

What the worker's connection hears is acted upon in its callback. Whatever is out of the ordinary before the first byte
went out is handed over to the coroutine of :mod:`router.gateway`, with the leg as it stands: there are the retries.
"""

from __future__ import annotations

from typing import Protocol

from router import relay
from router.answer_tail import Tail
from router.exchange import Exchange, Leg, Visit, now_seconds, outcome_of
from router.headers import to_client
from router.http.answer import BUFFERED_BYTES, Answer
from router.http.server import Turn


class Ends(Protocol):
    """What becomes of a request that went straight. One of these is called, once."""

    def answered(self, visit: Visit, status: int) -> None:
        """The client has the whole answer, or has left."""

    def cut(self, visit: Visit, why: str) -> None:
        """The answer broke off behind its first byte."""

    def go_on(self, visit: Visit, leg: Leg, turn: Turn) -> None:
        """The leg is not over and nothing went out: a coroutine sees to it."""


class StraightWay:
    """One request under way. Its leg has been sent."""

    __slots__ = ("_answer", "_ends", "_exchange", "_left", "_leg", "_tail", "_turn", "_visit")

    def __init__(
        self, exchange: Exchange, ends: Ends, visit: Visit, leg: Leg, answer: Answer, turn: Turn, left: int
    ) -> None:
        """``left``: the status that is counted for a client that left."""
        self._exchange = exchange
        self._ends = ends
        self._visit = visit
        self._leg = leg
        self._answer = answer
        self._turn = turn
        self._left = left
        self._tail = Tail()

    def begin(self) -> None:
        """From here on the callbacks see to it."""
        self._answer.on_news = self._heard
        self._turn.ride(self.cancel)

    def cancel(self) -> None:
        """The client left."""
        self._leg.over()
        self._ends.answered(self._visit, self._left)

    def _heard(self) -> None:
        try:
            if self._visit.client.begun:
                self._wait_for_end()
            else:
                self._wait_for_first_byte()
        except Exception as error:
            self._leg.over()
            self._ends.answered(self._visit, 500)
            self._turn.failed(error)

    def _wait_for_first_byte(self) -> None:
        answer, visit, leg = self._answer, self._visit, self._leg
        if answer.failed or answer.status >= 300 or (answer.ended and not answer.size):
            self._hand_over()
            return
        if answer.size and (visit.facts.stream or answer.ended):
            self._send()
            return
        self._exchange.head(visit, leg, answer)
        if answer.size:
            leg.first_byte()
            if answer.size > BUFFERED_BYTES // 2:
                self._hand_over()

    def _send(self) -> None:
        """What has come goes out, and what follows will. The client need not wait for what is learned by it."""
        answer, visit, leg = self._answer, self._visit, self._leg
        answer.first = answer.take()
        head = to_client(answer, visit.id_name, visit.id_value)
        whole = relay.begin(visit.client, answer, head, self._tail)
        self._exchange.head(visit, leg, answer)
        leg.first_byte()
        self._exchange.first_byte(visit, leg, True)
        if whole:
            self._finish()
        else:
            answer.pour(visit.client, self._tail.add)

    def _wait_for_end(self) -> None:
        if self._answer.ended:
            self._finish()
        elif self._answer.failed:
            self._exchange.cut(self._leg)
            self._visit.client.break_off()
            self._leg.over()
            self._ends.cut(self._visit, "the worker's connection broke")
            self._turn.over()

    def _finish(self) -> None:
        leg, status = self._leg, self._answer.status
        leg.booking.finished(self._tail, now_seconds())
        leg.outcome = outcome_of(status)
        leg.over()
        self._ends.answered(self._visit, status)
        self._turn.over()

    def _hand_over(self) -> None:
        self._answer.on_news = None
        self._ends.go_on(self._visit, self._leg, self._turn)
