"""Where requests go, and what is learned from their answers."""

from __future__ import annotations

import json
from random import Random

import pytest

from policies import LeaseBook, RateBook, RouteRequest, WorkerLoad, WorkerSpeed, make_policy
from policies.policy import Decision
from router.answer_tail import Tail
from router.body import read_facts
from router.metrics import Metrics
from router.placement import Placement
from router.prompt_text import PromptText
from tests.router import fake_backend
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend

LONG = "You are a helpful assistant who knows the whole manual. " * 40


async def converse(fleet, conversations: int, turns: int, **fields) -> None:
    """Turn by turn, all conversations side by side, each with its own beginning."""
    histories = [[f"conversation {index}: {LONG}"] for index in range(conversations)]
    for turn in range(turns):
        for history in histories:
            async with fleet.client.post("/v1/chat/completions", json=chat(*history, **fields)) as answer:
                assert answer.status == 200
                await answer.read()
            history += [f"answer {turn}", f"question {turn}"]


async def test_each_conversation_stays_where_its_prefix_is():
    async with running(FakeBackend(), FakeBackend(), policy="cache_aware") as fleet:
        await converse(fleet, conversations=6, turns=4)
        homes: dict[bytes, set[int]] = {}
        for index, backend in enumerate(fleet.backends):
            for received in backend.received:
                head = received.body[: received.body.index(b": You")]
                homes.setdefault(head, set()).add(index)
        assert len(homes) == 6
        assert all(len(where) == 1 for where in homes.values())
        assert all(backend.received for backend in fleet.backends)


@pytest.mark.parametrize("tells", ["head", "usage"])
@pytest.mark.parametrize("stream", [False, True])
async def test_predicted_and_actual_cached_tokens_are_compared(tells, stream):
    async with running(FakeBackend(tells=tells)) as fleet:
        await converse(fleet, conversations=1, turns=4, stream=stream)
        url = fleet.backends[0].url
        predicted = fleet.metric("warmlane_predicted_cached_tokens_total", worker=url)
        actual = fleet.metric("warmlane_actual_cached_tokens_total", worker=url)
        assert actual > 1000
        assert predicted == pytest.approx(actual, rel=0.15)


@pytest.mark.parametrize("tells", ["head", "usage"])
async def test_a_prompt_is_not_predicted_to_be_cached_beyond_its_own_length(tells, monkeypatch):
    """The router guesses 4 bytes a token; this text has about 6, as the backend tells at the end of its answers."""
    monkeypatch.setattr(fake_backend, "BYTES_PER_TOKEN", 6)
    async with running(FakeBackend(tells=tells)) as fleet:
        prompts = []
        for _ in range(2):
            async with fleet.client.post("/v1/chat/completions", json=chat(LONG)) as answer:
                prompts.append((await answer.json())["usage"]["prompt_tokens"])
        url = fleet.backends[0].url
        await until(lambda: fleet.metric("warmlane_actual_cached_tokens_total", worker=url) > 0)
        predicted = fleet.metric("warmlane_predicted_cached_tokens_total", worker=url)
        assert prompts[0] - 2 <= predicted <= prompts[0] - 1


@pytest.mark.parametrize("tells", ["head", "usage"])
async def test_the_policy_is_told_what_a_backend_had_cached(tells, monkeypatch):
    """Also when it lost its cache: no event of the backend is needed."""
    told: list[tuple[str, int]] = []

    def observe(_request, worker, cached_tokens, _now):
        told.append((worker, cached_tokens))

    async with running(FakeBackend(tells=tells)) as fleet:
        (backend,) = fleet.backends
        monkeypatch.setattr(fleet.router.policy, "observe", observe)
        await converse(fleet, conversations=1, turns=2)
        backend.prompts.clear()
        await converse(fleet, conversations=1, turns=1)
        assert [worker for worker, _ in told] == [backend.url] * 3
        assert [cached > 500 for _, cached in told] == [False, True, False]


@pytest.mark.parametrize(
    "body",
    [
        {"text": ["hello world " * 100 for _ in range(16)]},
        {"input_ids": [[5] * 200 for _ in range(16)]},
        {"input_ids": [5] * 200},
    ],
)
async def test_bodies_whose_bytes_and_tokens_do_not_belong_together_teach_no_lengths(body, monkeypatch):
    """A native batch tells of each prompt for itself, and the last one is what is read; token ids are no text."""
    told: list[int] = []
    one = {"text": "x", "meta_info": {"prompt_tokens": 201, "cached_tokens": 200}}
    async with running(FakeBackend()) as fleet:
        placement = fleet.router.placement
        monkeypatch.setattr(placement.policy, "observe", lambda *args: told.append(args[2]))
        before = placement.prompt_text.tokens("fake-model", b"x" * 4000)
        for _ in range(30):
            facts = read_facts("/generate", {}, json.dumps(body).encode(), placement.prompt_text)
            facts, dossier = await placement.open(facts, "id")
            _, decision = placement.choose(facts.route, fleet.router.registry.all(), 0.0, dossier)
            with placement.book(facts.route, decision, 0.0, dossier) as booking:
                tail = Tail()
                tail.add(json.dumps([one] * 16).encode())
                booking.finished(tail, 1.0)
        assert placement.prompt_text.tokens("", b"x" * 4000) == before == 1000
        assert told == ([] if facts.prompts > 1 else [200] * 30)


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, (9, 2, 4)),
        ({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2}, (9, 2, 4)),
        ({"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 2}, (9, 2, 4)),
        ({"input_tokens": 3, "cache_creation_input_tokens": 6, "cache_read_input_tokens": 0}, (9, None, None)),
        ({"input_tokens": 9, "cache_read_input_tokens": None, "output_tokens": 2}, (9, 2, None)),
        ({}, (None, None, None)),
    ],
)
def test_usage_in_each_dialect(usage, told):
    tail = Tail()
    tail.add(json.dumps({"content": [], "usage": usage}).encode())
    assert tail.usage() == told


async def test_put_is_placed_like_post():
    async with running(FakeBackend(), FakeBackend(), policy="cache_aware") as fleet:
        for _ in range(3):
            async with fleet.client.put("/generate", json={"text": LONG, "sampling_params": {}}) as answer:
                await answer.read()
        assert sorted(len(backend.received) for backend in fleet.backends) == [0, 3]
        assert (
            fleet.metric("smg_router_requests_total", model="fake-model", endpoint="/generate", streaming="false") == 3
        )


async def test_the_time_to_first_token_is_measured_and_teaches_the_speed():
    async with running(FakeBackend()) as fleet:
        for index in range(4):
            body = chat(f"{index} {LONG * 4}", stream=True)
            async with fleet.client.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
        assert fleet.metric("smg_router_ttft_seconds_count", model="fake-model") == 4
        speed = fleet.router.placement.speeds.speed(fleet.backends[0].url)
        assert 0 < speed.prefill_ms_per_token != 0.1


async def test_requests_in_flight_count_as_load_until_they_end():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        for backend in fleet.backends:
            backend.may_go_on.clear()
        answers = []
        for index in range(6):
            body = chat(f"{index} {LONG}", stream=True)
            answers.append(await fleet.client.post("/v1/chat/completions", json=body))
            await answers[-1].content.readany()
        assert [backend.running for backend in fleet.backends] == [3, 3]
        loads = [fleet.router.leases.load(backend.url) for backend in fleet.backends]
        assert [(load.requests, load.prefill_tokens, load.decodes) for load in loads] == [(3, 0, 3)] * 2
        for backend in fleet.backends:
            backend.may_go_on.set()
        for answer in answers:
            await answer.read()
        assert fleet.leases() == 0


@pytest.mark.parametrize("said", [0.033, None, "fast", -1.0, True, 1e9])
async def test_a_new_worker_is_as_fast_as_it_says_until_it_has_shown_it(said):
    info = {"max_total_num_tokens": 777, "measured_speed": {"prefill_ms_per_token": said}}
    told = []
    async with running(FakeBackend(server_info=info), policy="cache_aware") as fleet:
        fleet.router.policy.capacity = lambda url, tokens: told.append(tokens)
        fleet.router.insight.worker_restarted(fleet.router.registry.all()[0])
        await until(lambda: told)
        speeds, url = fleet.router.placement.speeds, fleet.backends[0].url
        expected = 0.033 if said == 0.033 else WorkerSpeed().prefill_ms_per_token
        assert speeds.speed(url).prefill_ms_per_token == pytest.approx(expected)


async def test_a_flushed_cache_is_as_large_as_before():
    told = []
    async with running(FakeBackend(server_info={"max_total_num_tokens": 777}), policy="cache_aware") as fleet:
        fleet.router.policy.capacity = lambda url, tokens: told.append(tokens)
        fleet.router.insight.worker_restarted(fleet.router.registry.all()[0])
        await until(lambda: told)
        told.clear()
        fleet.router.insight.worker_emptied(fleet.backends[0].url)
        assert told == [777]


def test_late_answers_of_a_worker_that_is_gone_teach_nothing():
    """Addresses of pods do not come back: nobody would forget it again, and it would count in the fleet's median."""
    placement = Placement(
        make_policy("cache_aware", seed=0), LeaseBook(), RateBook(), PromptText(), Metrics(lambda model: True)
    )
    bookings = [placement.book(RouteRequest(b"x" * 4000, 1000), Decision("w"), 0.0) for _ in range(5)]
    placement.forget("w")
    for booking in bookings:
        booking.first_token(1.0, 0, teach=True)
        booking.settle("ok")
    assert not placement.speeds.known("w")
    assert placement.speeds.usual() == WorkerSpeed()


def test_turns_of_a_chat_do_not_make_their_worker_look_fast():
    """Their ends tell that the answer was cached too that they continue: longer answers took no longer."""
    placement = Placement(
        make_policy("cache_aware", seed=0), LeaseBook(), RateBook(), PromptText(), Metrics(lambda model: True)
    )
    rng = Random(0)
    for turn in range(300):
        question, answer = rng.randint(50, 400), rng.randint(50, 1000)
        expected, held = (0, 0) if turn < 10 else (1000, 1000 + answer)
        prompt = held + question
        booking = placement.book(RouteRequest(b"x" * 4 * prompt, prompt), Decision("w", expected), 10.0 * turn)
        booking.first_token(10.0 * turn + 0.02 + question * 0.0001, None, teach=True)
        tail = Tail()
        usage = f'"prompt_tokens": {prompt}, "prompt_tokens_details": {{"cached_tokens": {held}}}'
        tail.add(b'{"choices": [], "usage": {' + usage.encode() + b"}}")
        booking.finished(tail, 10.0 * turn + 5.0)
        booking.settle("ok")
    assert placement.speeds.speed("w").prefill_ms_per_token == pytest.approx(0.1, rel=0.1)
    assert placement.speeds.line("w").count == 300


class TestTimesThatContradictThePrediction:
    """A prompt that was thought to be cached took as long as one that was not; the answer's head tells nothing."""

    SPEED = 0.1  # ms a token

    def placement(self) -> Placement:
        placement = Placement(
            make_policy("cache_aware", seed=0), LeaseBook(), RateBook(), PromptText(), Metrics(lambda model: True)
        )
        for tokens in (500, 1000, 4000, 2000) * 75:  # without any scatter
            placement.speeds.observe("w", tokens, WorkerLoad(), 20.0 + tokens * self.SPEED)
        return placement

    def answered_late(self, placement: Placement, usage: bytes) -> float:
        """What 100 tokens are expected to take after a first token that came as if 4,000 were computed."""
        booking = placement.book(RouteRequest(b"x" * 16_400, 4100), Decision("w", 4000), 0.0)
        booking.record(0.0)
        booking.first_token(0.42, None, teach=True)
        line = placement.speeds.line("w")
        assert (line.count, line.expected(100)) == (300, pytest.approx(30.0, rel=0.1))
        tail = Tail()
        tail.add(b'{"choices": [], ' + usage + b"}")
        booking.finished(tail, 1.0)
        booking.settle("ok")
        assert line.count == 301
        return line.expected(100)

    def test_a_cold_prompt_does_not_make_its_worker_look_slow(self):
        cold = b'"usage": {"prompt_tokens": 4100, "prompt_tokens_details": {"cached_tokens": 0}}'
        assert self.answered_late(self.placement(), cold) == pytest.approx(30.0, rel=0.1)

    @pytest.mark.parametrize(
        "usage",
        [b'"usage": {"prompt_tokens": 4100, "prompt_tokens_details": {"cached_tokens": 4000}}', b'"usage": null'],
        ids=["it was cached", "nobody says"],
    )
    def test_a_slow_worker_does(self, usage):
        assert self.answered_late(self.placement(), usage) > 35.0

    def test_the_policy_hears_of_it(self):
        placement = self.placement()
        heard = []
        placement.policy.felt = lambda request, worker, computed, alone: heard.append((worker, round(computed), alone))
        self.answered_late(placement, b'"usage": null')
        assert heard == [("w", pytest.approx(4000, rel=0.05), True)]
