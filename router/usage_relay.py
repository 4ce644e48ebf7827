"""A stream on its way to a client that did not ask for its usage: the event that the router asked for stays here."""

from __future__ import annotations

from router.answer_tail import Tail
from router.http.answer import Answer, Fault
from router.http.response import ResponseWriter
from router.relay import Cut
from router.usage_splice import UsageFilter


def can_filter(answer: Answer) -> bool:
    """Is it an event stream of unknown length that can be read?"""
    kind = answer.headers.get("content-type", "")
    packed = answer.headers.get("content-encoding", "identity") != "identity"
    return answer.status == 200 and kind.startswith("text/event-stream") and not packed and answer.length is None


async def relay_without_usage(client: ResponseWriter, answer: Answer, head: bytes, tail: Tail) -> None:
    """As :func:`router.relay.relay`, without the usage event, which ``tail`` sees. Raises :class:`Cut`."""
    usage = UsageFilter()
    tail.add(answer.first)
    whole = answer.complete
    first = usage.feed(answer.first) + (usage.rest() if whole else b"")
    client.begin(answer.status, answer.reason, head, None, first, end=whole)
    try:
        while not whole:
            chunk = await answer.read()
            tail.add(chunk)
            whole = answer.complete
            left = usage.feed(chunk) + (usage.rest() if whole else b"")
            if left or whole:
                client.write(left, whole)
            await client.drain()
    except Fault as fault:
        client.break_off()
        raise Cut(str(fault)) from fault
