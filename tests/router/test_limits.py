"""Limits and rates as clients of a whole router meet them."""

from __future__ import annotations

import asyncio

import pytest

from tests.router.conftest import Fleet, chat, running, until
from tests.router.fake_backend import FakeBackend


async def ask(fleet: Fleet, key: str = "", content: str = "hi") -> tuple[int, str | None, str | None]:
    """(status, code of the error, Retry-After)."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with fleet.client.post("/v1/chat/completions", json=chat(content), headers=headers) as answer:
        told = await answer.json()
        return answer.status, told.get("error", {}).get("code"), answer.headers.get("Retry-After")


def backend_that_waits() -> FakeBackend:
    backend = FakeBackend()
    backend.may_answer.clear()
    return backend


async def test_the_limit_on_requests_at_a_time_is_a_true_one():
    async with running(backend_that_waits(), max_concurrent_requests=2, queue_size=3) as fleet:
        (backend,) = fleet.backends
        asked = [asyncio.create_task(ask(fleet)) for _ in range(5)]
        await until(lambda: fleet.router.protection.admission.waiting == 3)
        await until(lambda: backend.running == 2)
        assert await ask(fleet) == (429, "queue_full", "1")
        backend.may_answer.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}
        assert fleet.metric("warmlane_requests_shed_total", reason="queue_full") == 1
        assert fleet.router.protection.admission.running == 0


async def test_who_waits_too_long_gets_503():
    async with running(backend_that_waits(), max_concurrent_requests=1, queue_timeout_secs=0.02) as fleet:
        first = asyncio.create_task(ask(fleet))
        await fleet.backends[0].until(lambda: fleet.backends[0].running == 1)
        assert await ask(fleet) == (503, "queue_timeout", "1")
        fleet.backends[0].may_answer.set()
        assert (await first)[0] == 200


async def test_a_client_that_leaves_the_line_leaves_its_place():
    async with running(backend_that_waits(), max_concurrent_requests=1) as fleet:
        admission = fleet.router.protection.admission
        first, second = (asyncio.create_task(ask(fleet)) for _ in range(2))
        await until(lambda: admission.waiting == 1)
        second.cancel()
        first.cancel()
        await until(lambda: (admission.waiting, admission.running) == (0, 0))


@pytest.mark.parametrize("own", [False, True])
async def test_no_worker_gets_more_than_its_limit(own):
    settings = {} if own else {"max_concurrent_requests_per_worker": 2}
    async with running(backend_that_waits(), backend_that_waits(), policy="random", **settings) as fleet:
        if own:
            for worker in fleet.router.registry.all():
                put = {"max_concurrent_requests": 2}
                async with fleet.client.put(f"/workers/{worker.id}", json=put) as answer:
                    assert answer.status == 202
        asked = [asyncio.create_task(ask(fleet)) for _ in range(7)]
        await until(lambda: fleet.router.protection.admission.waiting == 3)
        await until(lambda: [backend.running for backend in fleet.backends] == [2, 2])
        for backend in fleet.backends:
            backend.may_answer.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}


async def test_a_full_worker_that_fails_gives_its_request_to_one_with_room():
    bad, good = FakeBackend(), FakeBackend()
    async with running(bad, good, policy="round_robin", max_concurrent_requests_per_worker=1) as fleet:
        await bad.stop()
        assert {(await ask(fleet))[0] for _ in range(4)} == {200}


async def test_keys_have_limits_of_their_own(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alice a1\nalice a2\nbob b1\n")
    settings = {"api_key_file": str(keys), "max_concurrent_requests_per_key": 1, "queue_size": 0}
    async with running(backend_that_waits(), **settings) as fleet:
        first = asyncio.create_task(ask(fleet, "a1"))
        await fleet.backends[0].until(lambda: fleet.backends[0].running == 1)
        assert await ask(fleet, "a2") == (429, "queue_full", "1")
        second = asyncio.create_task(ask(fleet, "b1"))
        await fleet.backends[0].until(lambda: fleet.backends[0].running == 2)
        assert (await ask(fleet, "c"))[0] == 401
        fleet.backends[0].may_answer.set()
        assert [(await first)[0], (await second)[0]] == [200, 200]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"rate_limit_tokens_per_second": 0.01}, "rate_requests"),
        ({"rate_limit_prompt_tokens_per_second": 0.01}, "rate_tokens"),
        ({"key_rate_limit_requests_per_second": 0.01}, "key_rate_requests"),
        ({"key_rate_limit_prompt_tokens_per_second": 0.01}, "key_rate_tokens"),
    ],
)
async def test_beyond_a_rate_the_client_learns_when_to_come_back(settings, code):
    async with running(FakeBackend(), **settings) as fleet:
        assert (await ask(fleet))[0] == 200
        status, told, retry_after = await ask(fleet)
        assert (status, told) == (429, code)
        assert int(retry_after) >= 1
        assert fleet.metric("warmlane_requests_shed_total", reason=code) == 1


async def test_questions_about_the_fleet_are_not_limited():
    async with running(FakeBackend(), rate_limit_tokens_per_second=0.01) as fleet:
        for _ in range(5):
            async with fleet.client.get("/v1/models") as answer:
                assert answer.status == 200


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n"


async def head_alone(fleet: Fleet, length: int, more: bytes = b"") -> bytes:
    """The first line of what comes back for a head whose body is never sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
    writer.write(HEAD % (length, more))
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize(("length", "more"), [(50 * 2**20, b""), (10, b"Expect: 100-continue\r\n")])
async def test_what_will_be_refused_is_refused_before_its_body_is_read(length, more):
    async with running(backend_that_waits(), max_concurrent_requests=1, queue_size=1) as fleet:
        asked = [asyncio.create_task(ask(fleet)) for _ in range(2)]
        await until(lambda: fleet.router.protection.admission.waiting == 1)
        assert await head_alone(fleet, length, more) == b"HTTP/1.1 429 Too Many Requests\r\n"
        assert fleet.metric("warmlane_requests_shed_total", reason="queue_full") == 1
        fleet.backends[0].may_answer.set()
        assert {status for status, _, _ in await asyncio.gather(*asked)} == {200}
        assert await head_alone(fleet, 10, b"Expect: 100-continue\r\n") == b"HTTP/1.1 100 Continue\r\n"


async def test_a_rate_refuses_a_large_body_unread_and_charges_nothing():
    async with running(FakeBackend(), rate_limit_tokens_per_second=1) as fleet:
        assert (await ask(fleet))[0] == 200
        for _ in range(3):
            assert await head_alone(fleet, 50 * 2**20) == b"HTTP/1.1 429 Too Many Requests\r\n"
        assert fleet.metric("warmlane_requests_shed_total", reason="rate_requests") == 3


async def test_a_router_that_shuts_down_reads_no_large_body():
    async with running(FakeBackend()) as fleet:
        fleet.router.inflight.refusing = True
        assert await head_alone(fleet, 50 * 2**20) == b"HTTP/1.1 503 Service Unavailable\r\n"
