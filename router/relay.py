"""An answer on its way to the client: raw bytes, one chunk at a time, no faster than the client reads."""

from __future__ import annotations

from router.answer_tail import Tail
from router.http.answer import Answer, Fault
from router.http.response import ResponseWriter


class ClientGone(Exception):
    """The client left before it had the whole answer."""


class Cut(Exception):
    """The worker's answer broke off after its first byte; the client's connection was closed without a proper end."""


async def relay(client: ResponseWriter, answer: Answer, head: bytes, tail: Tail) -> None:
    """Send ``answer`` with the header lines ``head``; ``tail`` gets what goes by. Raises :class:`Cut`.

    The answer's head and its first bytes go out in one write; what follows is sent on as it comes in.
    """
    if begin(client, answer, head, tail):
        return
    try:
        await answer.send_on(client, tail.add)
    except Fault as fault:
        client.break_off()
        raise Cut(str(fault)) from fault


def begin(client: ResponseWriter, answer: Answer, head: bytes, tail: Tail) -> bool:
    """The first write. Returns whether that was all."""
    tail.add(answer.first)
    whole = answer.complete
    length = len(answer.first) if whole and answer.first else answer.length
    client.begin(answer.status, answer.reason, head, length, answer.first, end=whole)
    return whole
