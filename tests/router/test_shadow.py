"""The shadow policy: it decides the same requests on simulated engines and never sends any."""

from prometheus_client import CollectorRegistry

from policies import make_policy
from policies.policy import Candidate, Decision, RouteRequest, WorkerSpeed
from router.dossier import Attempt, Dossier
from router.shadow import Shadow
from tests.router.conftest import chat, running
from tests.router.fake_backend import FakeBackend

WORKERS = ("http://a:1", "http://b:1")


class World:
    def __init__(self, policy="cache_aware"):
        self.registry = CollectorRegistry()
        self.shadow = Shadow(make_policy(policy, seed=1), self.registry)
        self.now = 0.0

    def ask(self, text, tokens=None, live=WORKERS[0], attempts=1, ms=0.1):
        self.now += 10.0
        candidates = [Candidate(worker, speed=WorkerSpeed(ms)) for worker in WORKERS]
        dossier = Dossier("x", attempts=[Attempt(Decision(live), candidates, self.now)] * attempts)
        route = RouteRequest(text, len(text) // 4 if tokens is None else tokens)
        self.shadow.chosen(dossier, route, dossier.attempts[-1])

    def count(self, name, **labels):
        return self.registry.get_sample_value(f"warmlane_shadow_{name}_total", labels) or 0.0


def test_what_the_other_policy_would_have_reached():
    world = World()
    for turn in range(6):
        world.ask(b"a conversation that grows " * 100 * (turn + 1))
    world.ask(b"the last one lets the others be counted")
    assert world.count("prompt_tokens") == sum(650 * turn for turn in range(1, 7))
    assert world.count("cached_tokens") > 0.6 * world.count("prompt_tokens")
    assert world.count("first_tokens") == 6
    assert 0 < world.count("ttft_seconds") < 6
    agreed = sum(world.count("decisions", policy="cache_aware", agrees=answer) for answer in ("yes", "no"))
    assert agreed == 7


def test_a_policy_without_a_memory_reaches_less():
    seen = {}
    for policy in ("cache_aware", "random"):
        world = World(policy)
        for number in range(40):
            world.ask(f"conversation {number % 8} ".encode() * 200)
        seen[policy] = world.count("cached_tokens")
    assert seen["cache_aware"] > seen["random"]


def test_retries_and_texts_nobody_knows_do_not_count():
    world = World()
    world.ask(b"text", attempts=2)
    world.ask(b"")
    assert world.count("decisions", policy="cache_aware", agrees="yes") == 0


def test_a_prompt_that_fits_no_cache_is_left_out():
    world = World()
    for worker in WORKERS:
        world.shadow.capacity(worker, 500)
    world.ask(b"x" * 4000)
    world.ask(b"x" * 40)
    world.ask(b"x" * 40)
    assert world.count("prompt_tokens") == 10


def test_the_model_is_as_fast_as_the_worker_turns_out_to_be():
    world, waits = World("round_robin"), []
    for ms in (0.1, 0.1, 1.0, 1.0):  # the first requests come before anything was learned
        world.ask(b"%f " % world.now * 400, ms=ms)
        before = world.count("ttft_seconds")
        world.shadow._advance(world.now + 9.0)
        waits.append(world.count("ttft_seconds") - before)
    assert waits[2] > 5 * waits[0]
    assert waits[3] > 5 * waits[1]


def test_a_cache_size_that_is_told_late_counts():
    world = World("round_robin")
    for _ in WORKERS:
        world.ask(b"x" * 400)
    for worker in WORKERS:
        world.shadow.capacity(worker, 500)
    world.ask(b"y" * 4000)  # does not fit
    for _ in WORKERS:
        world.ask(b"x" * 40)
    assert world.count("prompt_tokens") == 110


def test_what_flies_to_a_worker_that_goes_takes_no_room(monkeypatch):
    monkeypatch.setattr("router.shadow.MAX_FLIGHTS", 3)
    world = World()
    for number in range(6):
        world.ask(b"%d " % number * 400)
        for worker in WORKERS:
            world.shadow.forget(worker)
    assert sum(world.count("decisions", policy="cache_aware", agrees=agrees) for agrees in ("yes", "no")) == 6


async def test_beside_the_live_policy():
    async with running(FakeBackend(), FakeBackend(), policy="round_robin", shadow_policy="cache_aware") as fleet:
        for _ in range(4):
            async with fleet.client.post("/v1/chat/completions", json=chat("hello " * 100)) as answer:
                await answer.read()
        decided = [
            fleet.metric("warmlane_shadow_decisions_total", policy="cache_aware", agrees=agrees)
            for agrees in ("yes", "no")
        ]
        assert sum(decided) == 4
        assert sum(len(backend.prompts) for backend in fleet.backends) == 4


async def test_a_flush_empties_the_simulated_caches_too(monkeypatch):
    forgotten = []
    monkeypatch.setattr(Shadow, "forget", lambda _shadow, worker: forgotten.append(worker))
    async with running(FakeBackend(), FakeBackend(), policy="round_robin", shadow_policy="cache_aware") as fleet:
        async with fleet.client.post("/flush_cache") as answer:
            assert answer.status == 200
        assert sorted(forgotten) == sorted(backend.url for backend in fleet.backends)
