"""The token parity probe against workers that answer in every way."""

import asyncio

import msgspec
import pytest

from router.fleet.worker import Health, Worker, WorkerSpec
from router.parity import MESSAGES, Parity, ParityProbe
from router.prompt_text import PromptText
from router.retry import Failure
from router.upstream import UpstreamError

WORKER = Worker(WorkerSpec(url="http://w:1"), health=Health.HEALTHY)


def render(messages, **_more):
    return "|".join(f"{message['role']}:{message['content']}" for message in messages)


def encode(text, special):
    return [int(special), *text.encode()]


OWN = encode(render(MESSAGES), False)
ROUTER = PromptText(render, encode)


class Answers:
    """A worker that knows the given paths."""

    def __init__(self, **paths):
        self.paths = {f"/{name.replace('__', '/')}": answer for name, answer in paths.items()}
        self.asked = []

    async def fetch(self, worker, method, path, timeout, body=None):
        self.asked.append((path, msgspec.json.decode(body)))
        answer = self.paths.get(path, (404, b""))
        if callable(answer):
            answer = answer()
        return answer


def told(value):
    return 200, msgspec.json.encode(value)


async def outcome(answers, prompt_text=ROUTER):
    probe = ParityProbe(answers, prompt_text)
    probe.watch(WORKER)
    async with asyncio.timeout(10):
        while probe.state(WORKER.url) is Parity.UNKNOWN:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    state = probe.state(WORKER.url)
    assert probe.same_tokens(WORKER.url) is (state is Parity.OK)
    await probe.close()
    return state


CHAT = "v1__chat__completions"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"tokenize": told({"tokens": OWN, "count": len(OWN)})}, Parity.OK),
        ({"tokenize": told({"tokens": OWN[:-1]})}, Parity.MISMATCH),
        ({CHAT: told({"usage": {"prompt_tokens": len(OWN)}})}, Parity.OK),
        ({"tokenize": (400, b""), CHAT: told({"usage": {"prompt_tokens": 3}})}, Parity.MISMATCH),
        ({"tokenize": (200, b"no json"), CHAT: (500, b"")}, Parity.TEXT),
        ({}, Parity.TEXT),
    ],
)
async def test_what_is_concluded(paths, expected):
    assert await outcome(Answers(**paths)) is expected


async def test_a_mismatch_is_said_aloud(caplog):
    await outcome(Answers(tokenize=told({"tokens": [1]})))
    assert "http://w:1 does not make the same tokens" in caplog.text
    assert "--model-path" in caplog.text


async def test_a_router_without_a_tokenizer_asks_nobody():
    answers = Answers()
    assert await outcome(answers, PromptText()) is Parity.TEXT
    assert answers.asked == []


async def test_without_a_template_the_plain_text_is_compared():
    answers = Answers(tokenize=told({"tokens": encode(MESSAGES[1]["content"], True)}))
    assert await outcome(answers, PromptText(encode=encode)) is Parity.OK
    assert answers.asked[0][1]["prompt"] == MESSAGES[1]["content"]


async def test_a_worker_that_is_gone_is_asked_again():
    tries = []

    def answer():
        tries.append(1)
        if len(tries) == 1:
            raise UpstreamError(Failure.CONNECT, "refused")
        return told({"tokens": OWN})

    assert await outcome(Answers(tokenize=answer)) is Parity.OK
    assert len(tries) == 2
