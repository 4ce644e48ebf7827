"""Several models behind one router."""

from __future__ import annotations

from router.fleet.worker import WorkerSpec
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


async def ask(fleet, model: str) -> int:
    async with fleet.client.post("/v1/chat/completions", json={**chat("hi"), "model": model}) as answer:
        return answer.status


async def test_requests_go_to_the_backend_of_their_model():
    async with running(FakeBackend(models=("a",)), FakeBackend(models=("b", "c"))) as fleet:
        for model in ("a", "b", "c", "b:adapter"):
            assert await ask(fleet, model) == 200
        assert [len(backend.received) for backend in fleet.backends] == [1, 3]


async def test_a_model_that_nobody_serves_is_not_found():
    async with running(FakeBackend(models=("a",))) as fleet:
        body = {**chat("hi"), "model": "gpt-4"}
        async with fleet.client.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 404
            error = (await answer.json())["error"]
        assert (error["param"], error["code"]) == ("model", "model_not_found")
        assert "gpt-4" in error["message"]
        assert not fleet.backends[0].received


async def test_anthropics_clients_get_errors_in_their_shape():
    async with running(FakeBackend(models=("a",))) as fleet:
        for sent, status, kind in (
            ({"json": {**chat("hi"), "model": "gpt-4"}}, 404, "not_found_error"),
            ({"data": b"{"}, 400, "invalid_request_error"),
        ):
            async with fleet.client.post("/v1/messages", **sent) as answer:
                told = await answer.json()
            assert (answer.status, told["type"], told["error"]["type"]) == (status, "error", kind)


async def test_no_model_or_default_means_any():
    async with running(FakeBackend(models=("a",))) as fleet:
        assert await ask(fleet, "default") == 200
        async with fleet.client.post("/generate", json={"text": "hi"}) as answer:
            assert answer.status == 200
        assert fleet.metric("smg_router_requests_total", model="a", endpoint="/generate", streaming="false") == 1


async def test_a_backend_that_lists_no_models_gets_what_others_do_not_serve():
    async with running(FakeBackend(models=("a",)), FakeBackend(models=())) as fleet:
        assert await ask(fleet, "surprise") == 200
        assert [len(backend.received) for backend in fleet.backends] == [0, 1]


async def test_while_a_backend_starts_another_one_says_which_models_there_are():
    starting = FakeBackend(models=("b",))
    starting.healthy = False
    async with running(FakeBackend(models=("a",)), starting, ready=False) as fleet:
        await until(lambda: fleet.router.registry.healthy())
        assert await ask(fleet, "b") == 404
        starting.healthy = True
        await until(lambda: len(fleet.router.registry.healthy()) == 2)
        assert await ask(fleet, "b") == 200


async def test_while_no_backend_told_its_models_none_is_unknown():
    starting = FakeBackend(models=("a",))
    starting.healthy = False
    async with running(starting, ready=False) as fleet:
        assert await ask(fleet, "b") == 503


async def test_a_model_whose_only_backend_is_down_is_unavailable_and_not_unknown():
    async with running(FakeBackend(models=("a",)), FakeBackend(models=("b",)), health_failure_threshold=1) as fleet:
        await fleet.backends[1].stop()
        assert await ask(fleet, "b") == 502
        await until(lambda: len(fleet.router.registry.healthy()) == 1)
        assert await ask(fleet, "b") == 503
        assert await ask(fleet, "a") == 200


async def test_models_are_listed_once_each():
    async with running(FakeBackend(models=("a", "b")), FakeBackend(models=("b", "c"))) as fleet:
        async with fleet.client.get("/v1/models") as answer:
            listed = await answer.json()
        assert listed["object"] == "list"
        assert [card["id"] for card in listed["data"]] == ["a", "b", "c"]
        async with fleet.client.get("/v1/models/b") as answer:
            assert (await answer.json())["id"] == "b"
        async with fleet.client.get("/v1/models/zzz") as answer:
            assert answer.status == 404


async def test_a_model_given_at_registration_counts_whatever_the_backend_lists():
    async with running(FakeBackend(models=("a",))) as fleet:
        other = await FakeBackend(models=("whatever",)).start()
        try:
            fleet.router.registry.add(WorkerSpec(url=other.url, model_id="named"))
            await until(lambda: len(fleet.router.registry.healthy()) == 2)
            assert await ask(fleet, "named") == 200
            assert len(other.received) == 1
        finally:
            await other.stop()


async def test_information_is_gathered_from_all_backends_without_their_addresses():
    async with running(FakeBackend(models=("a",)), FakeBackend(models=("b",))) as fleet:
        async with fleet.client.get("/get_model_info") as answer:
            told = await answer.json()
        assert told["model_path"] in ("a", "b")
        assert {one["model_path"] for one in told["workers"]} == {"a", "b"}
        assert "127.0.0.1" not in str(told)


async def test_a_worker_is_listed_under_the_name_that_it_was_given():
    async with running(FakeBackend(models=("a",)), FakeBackend(models=("a",)), FakeBackend(models=())) as fleet:
        for worker, name in zip(fleet.router.registry.all()[1:], ("b", "c"), strict=True):
            fleet.router.registry.change(worker, worker.spec.model_copy(update={"model_id": name}))
        async with fleet.client.get("/v1/models") as answer:
            cards = (await answer.json())["data"]
        assert [(card["id"], card["object"]) for card in cards] == [(name, "model") for name in "abc"]
        for model in "abc":
            assert await ask(fleet, model) == 200
            async with fleet.client.get(f"/v1/models/{model}") as answer:
                assert (await answer.json())["id"] == model
