"""How answers leave: the head goes out with the first token and says how much of the prompt was cached.

Of several prompts in one call some may still wait then. A stream's head does not wait for them and says nothing of the
cache; the head of a JSON body waits until it can say it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web

from backend.api.errors import json_response
from backend.api.event_style import DATA_EVENTS, EventStyle
from backend.api.event_writer import BuildEvents, EventWriter, TextWriter
from backend.api.ready_made import Around
from backend.frontend.errors import RequestError
from backend.frontend.generation import Generation, Sink
from backend.frontend.request import RequestState

logger = logging.getLogger(__name__)

CACHED_TOKENS = "x-warmlane-cached-tokens"
_encode = msgspec.json.Encoder().encode

BuildBody = Callable[[list[RequestState]], Any]
AroundText = Callable[[RequestState], Around | None]


async def answer_whole(request: web.Request, generation: Generation, build: BuildBody) -> web.StreamResponse:
    """One JSON body when all is finished; its head leaves with the first token (of several prompts: of the last one).

    An error after the head cannot be told by a status any more: the answer that it ended is told as aborted, and where
    the answers are lost the connection is closed before the body's end.
    """
    early: web.StreamResponse | None = None
    async with generation:
        try:
            async for _ in generation:
                known = early is None and _cached(generation.states) is not None
                if known and request.version >= HttpVersion11 and not _finished(generation):
                    early = _head(generation.states, "application/json")
                    early.enable_chunked_encoding()
                    await early.prepare(request)
                    generation.pass_on(lambda _: True)  # nothing to do before the end
            body = build(generation.states)
        except RequestError as error:
            if early is None:
                raise
            logger.warning("an answer was cut after its head: %s", error.message)
            body = await _late_body(generation, build)
            if body is None:
                if request.transport is not None:
                    request.transport.close()
                return early
    if early is None:
        whole = json_response(body)
        whole.headers[CACHED_TOKENS] = str(_cached(generation.states) or 0)
        return whole
    await early.write(_encode(body))
    await early.write_eof()
    return early


async def answer_stream(
    request: web.Request,
    generation: Generation,
    build: BuildEvents,
    last: BuildEvents | None = None,
    style: EventStyle = DATA_EVENTS,
    around: AroundText | None = None,
) -> web.StreamResponse:
    """Server-sent events, one write for each message of the scheduler. ``last`` builds events for the end.

    ``around`` tells what stands around the text of a request that has begun, where all its further events until the end
    are alike. An error before the first token is raised; later it becomes an event.
    """
    response: web.StreamResponse | None = None
    passed_on = False
    frames = b""
    async with generation:
        try:
            async for moved in generation:
                if response is None:
                    response = await _begin_stream(request, generation.states)
                frames = style.frames(build(moved))
                if _finished(generation):
                    break  # these go out with the end
                if frames:
                    await response.write(frames)
                    if response.chunked and not passed_on and request.transport is not None:
                        generation.pass_on(_writer(request.transport, generation, build, style, around))
                        passed_on = True
        except RequestError as error:
            if response is None:
                raise
            await response.write_eof(style.frames([style.error(error)]) + style.done)
            return response
    if response is None:
        raise RequestError("The server gave no answer.", HTTPStatus.INTERNAL_SERVER_ERROR)
    await response.write_eof(frames + style.frames(last(generation.states) if last else ()) + style.done)
    return response


async def _begin_stream(request: web.Request, states: list[RequestState]) -> web.StreamResponse:
    response = _head(states, "text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    if request.version >= HttpVersion11:
        response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _writer(
    transport: asyncio.WriteTransport,
    generation: Generation,
    build: BuildEvents,
    style: EventStyle,
    around: AroundText | None,
) -> Sink:
    if around is not None and len(generation.states) == 1 and (parts := around(generation.states[0])) is not None:
        return TextWriter(transport, parts)
    return EventWriter(transport, build, style)


def _head(states: list[RequestState], content_type: str) -> web.StreamResponse:
    cached = _cached(states)
    response = web.StreamResponse(headers={} if cached is None else {CACHED_TOKENS: str(cached)})
    response.content_type = content_type
    return response


def _cached(states: list[RequestState]) -> int | None:
    """Cached tokens of the call's prompts, each counted once whatever ``n``; None while one of them waits."""
    firsts = [state for state in states if state.sample == 0]
    if not all(state.started or state.finish is not None for state in firsts):
        return None
    return sum(state.cached_tokens for state in firsts)


async def _late_body(generation: Generation, build: BuildBody) -> Any | None:
    """What a call that failed behind its head has; None where answers are lost, or nothing in part."""
    if not await _all_end(generation):
        return None
    try:
        return build(generation.states)
    except RequestError:
        return None


async def _all_end(generation: Generation) -> bool:
    """Wait for a call's other answers, each of which may end in an error; false where they do not come."""
    for _ in generation.states:
        try:
            await generation.finished()
        except RequestError:
            continue
        break
    return _finished(generation)


def _finished(generation: Generation) -> bool:
    return all(state.finish is not None for state in generation.states)
