"""A stream on its way to the client, one whole event after the other, so that it can go on elsewhere after a cut."""

from __future__ import annotations

import asyncio

from router.answer_tail import Tail
from router.http.answer import Answer, Fault
from router.http.response import ResponseWriter
from router.relay import Cut
from router.resume import Events, Transcript

STREAM = "text/event-stream"


def is_stream(answer: Answer) -> bool:
    """An answer that can be taken up elsewhere: events, without an announced length."""
    return answer.status == 200 and answer.length is None and answer.headers.get("content-type", "").startswith(STREAM)


async def relay_events(client: ResponseWriter, answer: Answer, head: bytes, tail: Tail, transcript: Transcript) -> None:
    """Send ``answer`` or, when the client has a head already, go on with it. Raises :class:`Cut`.

    After a cut the client's connection is left as it is: it has whole events, and others may follow.
    """
    events = Events()
    chunk = answer.first
    try:
        while chunk:
            tail.add(chunk)
            data = b"".join([transcript.relay(event) for event in events.feed(chunk)])
            if not client.begun:
                client.begin(answer.status, answer.reason, head, None, data)
            elif data:
                client.write(data)
            await client.drain()
            chunk = await answer.read()
    except Fault as fault:
        raise Cut(str(fault)) from fault
    except ConnectionError as error:  # the client left; its task is being cancelled anyway
        raise asyncio.CancelledError from error
    if not transcript.done:
        raise Cut("the stream ended without its last event")
    client.write(events.close(), end=True)
