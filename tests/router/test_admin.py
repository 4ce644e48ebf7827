"""The worker API, orders to all workers, and who may use them."""

from __future__ import annotations

import aiohttp
import pytest
from yarl import URL

from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


async def test_a_worker_is_added_listed_used_and_removed():
    async with running() as fleet:
        backend = await FakeBackend().start()
        try:
            body = {"url": backend.url, "labels": {"rack": "7"}, "priority": 10}
            async with fleet.client.post("/workers", json=body) as answer:
                assert answer.status == 202
                added = await answer.json()
            await until(lambda: fleet.router.registry.healthy())
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
            async with fleet.client.get("/workers") as answer:
                listed = await answer.json()
            assert listed["total"] == 1
            assert listed["stats"] == {"prefill_count": 0, "decode_count": 0, "regular_count": 1}
            (row,) = listed["workers"]
            assert row["id"] == added["worker_id"]
            assert (row["url"], row["model_id"], row["is_healthy"]) == (backend.url, "fake-model", True)
            assert (row["metadata"], row["priority"], row["load"]) == ({"rack": "7"}, 10, 0)
            async with fleet.client.delete(added["location"]) as answer:
                assert answer.status == 202
            async with fleet.client.get(added["location"]) as answer:
                assert answer.status == 404
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 503
        finally:
            await backend.stop()


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, "body"),
        (b'{"url": "grpc://x:1"}', 400, "url"),
        (b'{"url": "x"}', 400, "url"),
        (b'{"url": "x:1", "worker_type": "encode"}', 400, "worker_type"),
        (b'{"url": "x:1", "health_check_interval_secs": 0}', 400, "health_check_interval_secs"),
        (b'{"labels": {}}', 400, "url"),
    ],
)
async def test_a_bad_worker_is_refused_with_the_name_of_the_field(body, status, field):
    async with running() as fleet:
        answer = await fleet.client.post("/workers", data=body)
        assert answer.status == status
        assert (await answer.json())["error"]["param"] == field


async def test_fields_of_sglangs_router_are_taken():
    unset = ("api_key", "model_id", "priority", "cost", "runtime", "labels", "bootstrap_port", "chat_template")
    body = {
        "worker_type": "regular",
        "tokenizer_path": "/models/m",
        "reasoning_parser": "qwen3",
        "tool_parser": "qwen",
        "max_connection_attempts": 20,
        "dp_aware": False,
        "health_check_timeout_secs": 30,
        **dict.fromkeys(unset),
    }
    async with running() as fleet:
        answer = await fleet.client.post("/workers", json={"url": "http://127.0.0.1:9", **body})
        assert answer.status == 202, await answer.text()
        (worker,) = fleet.router.registry.all()
        assert (worker.spec.priority, worker.spec.labels) == (50, {})


async def test_a_known_address_is_refused():
    async with running(FakeBackend()) as fleet:
        answer = await fleet.client.post("/workers", json={"url": fleet.backends[0].url + "/"})
        assert answer.status == 409


async def test_requests_of_a_removed_worker_finish():
    async with running(FakeBackend()) as fleet:
        (backend,) = fleet.backends
        backend.may_go_on.clear()
        answer = await fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True))
        (worker,) = fleet.router.registry.all()
        await fleet.client.delete(f"/workers/{worker.id}")
        backend.may_go_on.set()
        assert (await answer.read()).endswith(b"[DONE]\n\n")


async def test_the_series_of_a_removed_worker_go():
    async with running(FakeBackend(), FakeBackend(), policy="round_robin") as fleet:
        for _ in range(2):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                await answer.read()
        gone, stays = fleet.router.registry.all()
        await fleet.client.delete(f"/workers/{gone.id}")
        async with fleet.client.get("/metrics") as answer:
            text = await answer.text()
        assert gone.url not in text
        assert f'warmlane_worker_attempts_total{{outcome="ok",worker="{stays.url}"}} 1.0' in text


async def test_flush_reaches_all_workers_and_their_prefixes_are_forgotten():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hello " * 100)) as answer:
            await answer.read()
        before = fleet.router.policy.stats()["prefix_tree_nodes"]
        async with fleet.client.post("/flush_cache") as answer:
            told = await answer.json()
        assert sorted(told["successful"]) == sorted(backend.url for backend in fleet.backends)
        assert [backend.flushed for backend in fleet.backends] == [1, 1]
        assert fleet.router.policy.stats()["prefix_tree_nodes"] < before


async def test_loads_are_gathered_and_a_dead_worker_delays_nobody():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        async with fleet.client.post("/generate", json={"text": "hi"}) as answer:
            await answer.read()
        await fleet.backends[1].stop()
        async with fleet.client.get("/get_loads") as answer:
            loads = {row["worker"]: row["load"] for row in (await answer.json())["workers"]}
        assert loads[fleet.backends[1].url] == -1
        assert loads[fleet.backends[0].url] in (0, 10)


async def test_an_abort_is_told_to_all_workers():
    async with running(FakeBackend(), FakeBackend()) as fleet:
        async with fleet.client.post("/abort_request", json={"rid": "x"}) as answer:
            assert answer.status == 200
        for backend in fleet.backends:
            assert [received.body for received in backend.received] == [b'{"rid": "x"}']


@pytest.mark.parametrize(
    "path",
    ["/pause_generation", "/update_weights_from_disk", "/%70ause_generation", "/v1/load_lora_adapter", "/sleep",
     "/v1/../sleep", "/v1/%2e%2e/sleep", "/v1//load_lora_adapter", "//sleep", "/abort_request", "/%61bort_request"],
)  # fmt: skip
async def test_what_steers_a_backend_is_an_operators(path):
    async with running(FakeBackend()) as fleet:
        url = URL(f"http://127.0.0.1:{fleet.router.port}{path}", encoded=True)
        async with aiohttp.ClientSession() as client:
            answer = await client.post(url, json={"abort_all": True}, headers={"X-Forwarded-For": "203.0.113.9"})
            assert (answer.status, fleet.backends[0].received) == (403, [])
            assert (await client.post(url, json={"rid": "x"})).status == 200
        assert len(fleet.backends[0].received) == 1


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize", "/v1/audio/speech", "/health_generate", "/v1/files/a"])
async def test_what_only_answers_is_for_every_client(path):
    async with running(FakeBackend()) as fleet:
        answer = await fleet.client.post(path, json={}, headers={"X-Forwarded-For": "203.0.113.9"})
        assert (answer.status, len(fleet.backends[0].received)) == (200, 1)


async def test_keys_of_backends_are_not_told():
    info = {"model_path": "m", "api_key": "s3cret", "admin_api_key": "s3cret"}
    async with running(FakeBackend(server_info=info)) as fleet, fleet.client.get("/get_server_info") as answer:
        said = await answer.text()
        assert '"model_path": "m"' in said
        assert "s3cret" not in said


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 403), ("none", 200)])
async def test_a_picture_on_a_web_page_empties_no_cache(site, status):
    async with running(FakeBackend()) as fleet:
        answer = await fleet.client.get("/flush_cache", headers={"Sec-Fetch-Site": site})
        assert (answer.status, fleet.backends[0].flushed) == (status, int(status == 200))


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "X-Real-IP", "Via", "Origin"])
@pytest.mark.parametrize("path", ["/workers", "/flush_cache", "/get_loads", "/workers/x"])
async def test_admin_routes_answer_no_proxy_and_no_web_page(path, header):
    async with running() as fleet:
        answer = await fleet.client.get(path, headers={header: "127.0.0.1"})
        assert answer.status == 403


async def test_with_an_admin_key_it_is_needed_and_enough():
    async with running(admin_api_key="secret") as fleet:
        for headers, status in [
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "secret"}, 401),
            ({"Authorization": "Bearer secret", "X-Forwarded-For": "203.0.113.1"}, 200),
        ]:
            async with fleet.client.get("/workers", headers=headers) as answer:
                assert answer.status == status


async def test_an_api_key_guards_everything_but_the_probes():
    async with running(FakeBackend(), api_key="key") as fleet:
        for path, status in [("/liveness", 200), ("/readiness", 200), ("/health", 200)]:
            async with fleet.client.get(path) as answer:
                assert answer.status == status
        for path in ("/v1/models", "/metrics", "/get_server_info", "/health_generate", "/anything", "/workers"):
            async with fleet.client.get(path) as answer:
                assert answer.status == 401
            async with fleet.client.get(path, headers={"Authorization": "Bearer key"}) as answer:
                assert answer.status in (200, 503)


async def test_a_workers_own_key_replaces_the_clients():
    async with running() as fleet:
        backend = await FakeBackend().start()
        try:
            await fleet.client.post("/workers", json={"url": backend.url, "api_key": "for-this-worker"})
            await until(lambda: fleet.router.registry.healthy())
            async with fleet.client.get("/x", headers={"Authorization": "Bearer of-the-client"}) as answer:
                assert answer.status == 200
            assert backend.received[0].header("Authorization") == "Bearer for-this-worker"
            async with fleet.client.get("/workers") as answer:
                assert "for-this-worker" not in await answer.text()
        finally:
            await backend.stop()


async def test_unknown_methods_of_admin_routes_reach_no_backend():
    async with running(FakeBackend()) as fleet:
        answer = await fleet.client.put("/workers")
        assert answer.status == 405
        assert not fleet.backends[0].received
