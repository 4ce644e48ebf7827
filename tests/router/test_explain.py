"""Decisions that can be read back: the header on demand, the ring by id, and decisions without sending."""

import pytest

from policies.policy import Candidate, Decision, RouteRequest, Score
from router.dossier import Attempt, Dossier
from router.explain import ASK_HEADER, DECISION_HEADER, ExplainRing
from tests.router.conftest import chat, running
from tests.router.fake_backend import FakeBackend

CHAT = "/v1/chat/completions"
LONG = "a long shared prefix " * 40


async def test_a_request_is_explained_by_its_id():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        for name in ("first", "second"):
            async with fleet.client.post(CHAT, json=chat(LONG), headers={"X-Request-Id": name}) as answer:
                await answer.read()
        async with fleet.client.get("/router/explain/second") as answer:
            told = await answer.json()
        assert told["request_id"] == "second"
        assert told["prompt_bytes"] > len(LONG)
        [attempt] = told["attempts"]
        assert attempt["outcome"] == "ok"
        assert attempt["reason"] == "warm"
        assert attempt["predicted_cached_tokens"] > 100
        assert attempt["actual"]["cached_tokens"] > 100
        assert attempt["candidates_total"] == len(attempt["candidates"]) == 2
        chosen = next(row for row in attempt["candidates"] if row["worker"] == attempt["worker"])
        assert chosen["cached_tokens"] == attempt["predicted_cached_tokens"]
        assert {"queue_ms", "prefill_ms", "decode_ms", "total_ms", "load", "exact"} <= chosen.keys()
        assert LONG not in str(told)
        async with fleet.client.get("/router/explain/never") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["param"] == "request_id"


async def test_failed_attempts_are_told_too():
    good, bad = FakeBackend(), FakeBackend()
    async with running(good, bad, policy="round_robin") as fleet:
        await bad.stop()
        for name in "abcd":
            async with fleet.client.post(CHAT, json=chat("hi"), headers={"X-Request-Id": name}) as answer:
                assert answer.status == 200
        outcomes = []
        for name in "abcd":
            async with fleet.client.get(f"/router/explain/{name}") as answer:
                outcomes.append([attempt["outcome"] for attempt in (await answer.json())["attempts"]])
        assert ["connect", "ok"] in outcomes


async def test_the_header_comes_on_demand_and_names_no_address():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        async with fleet.client.post(CHAT, json=chat("hi")) as answer:
            assert DECISION_HEADER not in answer.headers
        for stream in (False, True):
            async with fleet.client.post(CHAT, json=chat("hi", stream=stream), headers={ASK_HEADER: "1"}) as answer:
                told = answer.headers[DECISION_HEADER]
        fields = dict(part.split("=") for part in told.split("; "))
        assert fields["worker"] in {worker.id for worker in fleet.router.registry.all()}
        assert fields["candidates"] == "2"
        assert "127.0.0.1" not in told


async def test_operators_only():
    async with running(FakeBackend(), admin_api_key="boss") as fleet:
        key = {"Authorization": "Bearer boss"}
        async with fleet.client.post(CHAT, json=chat("hi"), headers={ASK_HEADER: "1"}) as answer:
            assert answer.status == 200
            assert DECISION_HEADER not in answer.headers
        async with fleet.client.post(CHAT, json=chat("hi"), headers={ASK_HEADER: "1", **key}) as answer:
            assert DECISION_HEADER in answer.headers
        for method, path in (("GET", "/router/explain/x"), ("POST", "/router/simulate")):
            async with fleet.client.request(method, path, data=b"{}") as answer:
                assert answer.status == 401


async def test_a_decision_without_sending():
    backend, other = FakeBackend(), FakeBackend()
    async with running(backend, other) as fleet:
        async with fleet.client.post(CHAT, json=chat(LONG)) as answer:
            await answer.read()
        before = len(backend.received) + len(other.received)
        async with fleet.client.post("/router/simulate", json=chat(LONG)) as answer:
            told = await answer.json()
        assert len(backend.received) + len(other.received) == before
        assert told["reason"] == "warm"
        assert told["predicted_cached_tokens"] > 100
        assert told["model"] == "fake-model"
        assert fleet.leases() == 0
        async with fleet.client.post("/router/simulate?path=/generate", json={"text": "hi"}) as answer:
            assert (await answer.json())["prompt_tokens"] < 5
        for query, body, status in (("?path=/x", b"{}", 400), ("", b"no", 400), ("", b'{"model": "other"}', 404)):
            async with fleet.client.post(f"/router/simulate{query}", data=body) as answer:
                assert answer.status == status


@pytest.mark.parametrize(
    ("policy", "header"), [("consistent_hashing", "x-smg-routing-key"), ("passthrough", "x-smg-target-worker")]
)
async def test_headers_that_decide_count_in_a_simulation(policy, header):
    async with running(FakeBackend(), FakeBackend(), FakeBackend(), policy=policy) as fleet:
        for value in "012":
            answers = []
            for path in ("/router/simulate", CHAT):
                headers = {header: value, "X-Request-Id": value}
                async with fleet.client.post(path, json=chat("hi"), headers=headers) as answer:
                    answers.append(await answer.json())
            async with fleet.client.get(f"/router/explain/{value}") as answer:
                sent = (await answer.json())["attempts"][0]
            assert (answers[0]["worker"], answers[0]["reason"]) == (sent["worker"], sent["reason"])
            assert sent["reason"] in ("home", "target")


def test_the_ring_is_bounded_and_the_last_of_an_id_counts():
    ring = ExplainRing(size=3)
    for name in ("a", "b", "a", "c", "d"):
        dossier = Dossier(name)
        dossier.attempts.append(Attempt(Decision("w", 1, "warm", (Score("w"),)), [Candidate("w")], 0.0))
        ring.chosen(dossier, RouteRequest(), dossier.attempts[-1])
    assert len(ring) == 3
    assert [name for name in "abcd" if ring.find(name)] == ["a", "c", "d"]
