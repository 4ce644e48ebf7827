"""An answer on its way to the client: raw bytes, one chunk at a time, no faster than the client reads."""

from __future__ import annotations

from aiohttp import web
from multidict import CIMultiDict

from router.answer_tail import Tail
from router.upstream import Answer, UpstreamError

SERVER = "warmlane"


class ClientGone(Exception):
    """The client left before it had the whole answer."""


class Cut(Exception):
    """The worker's answer broke off after its first byte; the client's connection was closed without a proper end."""


async def relay(request: web.Request, answer: Answer, headers: CIMultiDict[str], tail: Tail) -> web.StreamResponse:
    """Send ``answer`` with ``headers``; ``tail`` gets what goes by. Raises :class:`ClientGone` and :class:`Cut`."""
    tail.add(answer.first)
    if answer.complete:
        return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=answer.first or None)
    headers.setdefault("Server", SERVER)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    try:
        await response.prepare(request)
        chunk = answer.first
        while chunk:
            await response.write(chunk)
            chunk = await answer.read()
            tail.add(chunk)
        await response.write_eof()
    except UpstreamError as error:
        break_off(request)
        raise Cut(str(error)) from error
    except ConnectionError as error:
        raise ClientGone from error
    return response


def break_off(request: web.BaseRequest) -> None:
    """Close without the end mark, so that the client sees that the answer is not whole."""
    if request.transport is not None:
        request.transport.close()


def break_off_if_begun(request: web.BaseRequest) -> None:
    """For a failure that may have come before or after the answer's head."""
    if request.writer.output_size:
        break_off(request)
