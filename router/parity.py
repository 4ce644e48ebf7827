"""Does a worker make the same tokens of a prompt as the router? Asked when it joins, because nothing else would tell.

A router that renders or tokenises differently finds no prefix ever and says nothing. So each worker is asked for the
tokens of one odd conversation (``/tokenize``; where that is missing, for the length that a one-token answer reports).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from router.conversation import is_stand_in
from router.fleet.tasks import WorkerTasks
from router.fleet.told import decoded
from router.fleet.vitals import Fetcher
from router.fleet.worker import Health, Worker
from router.prompt_text import PromptText
from router.upstream import UpstreamError

log = logging.getLogger(__name__)

ASK_SECONDS = 30.0
LOOK_SECONDS = 0.5
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a probe.\n\nAnswer with  one word."},
    {"role": "user", "content": "Où est la gare? 東京駅 🚉 x1234567890\t\u00a0end "},
    {"role": "assistant", "content": "Here: `a_b-c`."},
    {"role": "user", "content": "And  now?"},
]
PLAIN: str = MESSAGES[1]["content"]


class Parity(StrEnum):
    """What is known of a worker's tokens."""

    UNKNOWN = "unknown"  # not asked yet
    OK = "ok"
    TEXT = "text"  # cannot be compared: texts are
    MISMATCH = "mismatch"


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Usage(msgspec.Struct):
    prompt_tokens: int


class _Completion(msgspec.Struct):
    usage: _Usage


class ParityProbe:
    """One task per worker, from when it is well until it has been asked."""

    def __init__(self, fetcher: Fetcher, prompt_text: PromptText) -> None:
        self._fetcher = fetcher
        self._own_chat, self._own_plain = _own_tokens(prompt_text)
        self._states: dict[str, Parity] = {}
        self._tasks = WorkerTasks("token parity", self._settle)

    def state(self, url: str) -> Parity:
        return self._states.get(url, Parity.UNKNOWN)

    def same_tokens(self, url: str) -> bool:
        return self._states.get(url) is Parity.OK

    def watch(self, worker: Worker) -> None:
        self._tasks.start(worker)

    def unwatch(self, worker: Worker) -> None:
        self._tasks.stop(worker)
        self._states.pop(worker.url, None)

    def restarted(self, worker: Worker) -> None:
        """It may serve another model now."""
        if worker in self._tasks:
            self.unwatch(worker)
            self.watch(worker)

    async def close(self) -> None:
        await self._tasks.close()

    async def _settle(self, worker: Worker) -> None:
        while True:
            state = await self._probe(worker)
            if state is not None:
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._states[worker.url] = state
        if state is Parity.MISMATCH:
            log.warning(
                "worker %s does not make the same tokens of a prompt as this router: is --model-path (or "
                "--chat-template) what it serves? Its exact cache is not used; placement compares texts",
                worker.url,
            )

    async def _probe(self, worker: Worker) -> Parity | None:
        """None when the worker cannot be asked now."""
        own = self._own_chat or self._own_plain
        if own is None:
            return Parity.TEXT
        if worker.health is not Health.HEALTHY:
            return None
        try:
            theirs = await self._tokens(worker)
            if theirs is not None:
                return Parity.OK if theirs == own else Parity.MISMATCH
            length = await self._length(worker)
        except UpstreamError:
            return None
        return Parity.TEXT if length is None else Parity.OK if length == len(own) else Parity.MISMATCH

    async def _tokens(self, worker: Worker) -> list[int] | None:
        body = {"messages": MESSAGES, "add_generation_prompt": True} if self._own_chat else {"prompt": PLAIN}
        answer = await self._ask(worker, "/tokenize", body, _Tokens)
        return answer.tokens if isinstance(answer, _Tokens) else None

    async def _length(self, worker: Worker) -> int | None:
        body: dict[str, Any]
        if self._own_chat:
            path, body = "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1}
        else:
            path, body = "/v1/completions", {"prompt": PLAIN, "max_tokens": 1}
        answer = await self._ask(worker, path, body, _Completion)
        return answer.usage.prompt_tokens if isinstance(answer, _Completion) else None

    async def _ask(self, worker: Worker, path: str, fields: dict[str, Any], kind: type[msgspec.Struct]) -> Any:
        """The decoded answer; None when the worker does not know the question."""
        body = {"model": next(iter(worker.names), "default"), **fields}
        status, answer = await self._fetcher.fetch(worker, "POST", path, ASK_SECONDS, msgspec.json.encode(body))
        return decoded(answer, kind) if status == 200 else None


def _own_tokens(prompt_text: PromptText) -> tuple[list[int] | None, list[int] | None]:
    """What the router makes of the conversation and of the plain text; None where it cannot."""
    encode: Callable[[str, bool], list[int]] | None = prompt_text.encode
    if encode is None:
        return None, None
    text = prompt_text.chat(MESSAGES, None, {}, False)
    chat = None if is_stand_in(text) else encode(text.decode(), False)
    return chat, encode(PLAIN, True)
