"""Changing, draining and the older routes of workers; workers from a file; keys and pages."""

from __future__ import annotations

import pytest

from router.fleet.worker import Health
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


async def test_a_put_changes_what_it_names_and_nothing_else():
    async with running(FakeBackend()) as fleet:
        (worker,) = fleet.router.registry.all()
        body = {"priority": 7, "labels": {"rack": "4"}, "api_key": "secret"}
        async with fleet.client.put(f"/workers/{worker.id}", json=body) as answer:
            assert answer.status == 202
        async with fleet.client.put(f"/workers/{worker.id}", json={"cost": 2.5}) as answer:
            assert answer.status == 202
        async with fleet.client.get(f"/workers/{worker.id}") as answer:
            shown = await answer.json()
        assert (shown["priority"], shown["cost"], shown["metadata"]) == (7, 2.5, {"rack": "4"})
        async with fleet.client.post("/generate", json={"text": "x"}) as answer:
            assert answer.status == 200
        assert fleet.backends[0].received[-1].header("Authorization") == "Bearer secret"


async def test_null_in_a_put_names_nothing():
    async with running(FakeBackend()) as fleet:
        (worker,) = fleet.router.registry.all()
        body = {"priority": None, "cost": None, "labels": None, "disable_health_check": None, "api_key": "k"}
        async with fleet.client.put(f"/workers/{worker.id}", json=body) as answer:
            assert answer.status == 202
        assert (worker.spec.priority, worker.spec.api_key) == (50, "k")


@pytest.mark.parametrize("field", ["cost", "health_check_interval_secs"])
async def test_numbers_that_json_cannot_say_are_refused(field):
    async with running(FakeBackend()) as fleet:
        body = f'{{"url": "b:1", "{field}": 1e999}}'
        async with fleet.client.post("/workers", data=body) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, field)


async def test_a_worker_that_is_no_longer_checked_gets_requests():
    backend = FakeBackend(healthy=False)
    async with running(backend, ready=False) as fleet:
        (worker,) = fleet.router.registry.all()
        await until(lambda: backend.health_checks)
        async with fleet.client.put(f"/workers/{worker.id}", json={"disable_health_check": True}) as answer:
            assert answer.status == 202
        await until(lambda: worker.health is Health.HEALTHY)


async def test_a_workers_own_limit_that_processes_cannot_divide_is_refused():
    async with running(FakeBackend()) as fleet:
        fleet.router.registry._processes = 3
        (worker,) = fleet.router.registry.all()
        body = {"max_concurrent_requests": 2}
        async with fleet.client.put(f"/workers/{worker.id}", json=body) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, "max_concurrent_requests")
        async with fleet.client.post("/workers", json={"url": "b:1", **body}) as answer:
            assert answer.status == 400


@pytest.mark.parametrize("body", [{"url": "b:1"}, {"health_check_interval_secs": 0}, {"priority": "high"}])
async def test_a_put_of_something_else_is_refused(body):
    async with running(FakeBackend()) as fleet:
        (worker,) = fleet.router.registry.all()
        async with fleet.client.put(f"/workers/{worker.id}", json=body) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == next(iter(body))


async def test_a_draining_worker_finishes_and_gets_nothing_new():
    async with running(FakeBackend(), FakeBackend(), policy="round_robin") as fleet:
        first, second = fleet.backends
        for backend in fleet.backends:
            backend.may_go_on.clear()
        streams = [await fleet.client.post("/generate", json={"text": "x", "stream": True}) for _ in range(2)]
        worker = fleet.router.registry.find(first.url)
        async with fleet.client.post(f"/workers/{worker.id}/drain") as answer:
            assert (answer.status, (await answer.json())["load"]) == (202, 1)
        for backend in fleet.backends:
            backend.may_go_on.set()
        assert [(await stream.read())[-8:] for stream in streams] == [b"[DONE]\n\n"] * 2
        before = len(first.received)
        for _ in range(4):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
        assert len(first.received) == before
        async with fleet.client.get("/workers") as answer:
            rows = {row["url"]: row for row in (await answer.json())["workers"]}
        assert [rows[backend.url]["draining"] for backend in (first, second)] == [True, False]
        async with fleet.client.post(f"/workers/{worker.id}/resume") as answer:
            assert answer.status == 202
        for _ in range(2):
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
        assert len(first.received) == before + 1


async def test_the_older_routes_add_list_and_remove():
    async with running() as fleet:
        backend = await FakeBackend().start()
        try:
            address = f"127.0.0.1:{backend.port}"
            async with fleet.client.post("/add_worker", params={"url": address}) as answer:
                assert await answer.text() == f"Successfully added worker: {backend.url}"
            async with fleet.client.get("/list_workers") as answer:
                assert await answer.json() == {"urls": [backend.url]}
            async with fleet.client.get(f"/workers/{backend.url}/") as answer:
                assert (await answer.json())["url"] == backend.url
            async with fleet.client.post("/remove_worker", params={"url": address}) as answer:
                assert answer.status == 200
            for path, status in [("/remove_worker", 404), ("/add_worker?url=grpc://x:1", 400), ("/add_worker", 400)]:
                async with fleet.client.post(path, params={} if "?" in path else {"url": ""}) as answer:
                    assert answer.status in (status, 400)
        finally:
            await backend.stop()


@pytest.mark.parametrize("path", ["/add_worker", "/remove_worker", "/list_workers", "/workers/x/drain"])
async def test_they_are_for_operators_only(path):
    async with running() as fleet:
        answer = await fleet.client.post(path, headers={"X-Forwarded-For": "203.0.113.9"})
        assert answer.status == 403


async def test_workers_of_a_file_come_and_go(tmp_path):
    first, second = await FakeBackend().start(), await FakeBackend().start()
    file = tmp_path / "workers.yaml"
    file.write_text(f"- {first.url}\n")
    try:
        async with running(ready=False, workers_file=str(file)) as fleet:
            await until(lambda: [worker.url for worker in fleet.router.registry.healthy()] == [first.url])
            file.write_text(f"- url: {second.url}\n  labels: {{rack: '1'}}\n")
            await until(lambda: [worker.url for worker in fleet.router.registry.healthy()] == [second.url])
    finally:
        await first.stop()
        await second.stop()


async def test_metrics_may_be_public_while_the_rest_needs_a_key():
    async with running(api_key="key", metrics_public=True) as fleet:
        for path, status in [("/metrics", 200), ("/v1/models", 401), ("/health_generate", 401)]:
            async with fleet.client.get(path) as answer:
                assert answer.status == status


async def test_pages_of_named_origins_may_call_and_others_get_no_header():
    async with running(FakeBackend(), cors_allowed_origins=["https://a.example"]) as fleet:
        asking = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        async with fleet.client.options("/v1/chat/completions", headers=asking) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "https://a.example")
            assert "Content-Length" not in answer.headers  # RFC 9110: not in a 204
        for origin, expected in [("https://a.example", "https://a.example"), ("https://b.example", None)]:
            for stream in (False, True):
                body = chat("hi", stream=stream)
                headers = {"Origin": origin}
                async with fleet.client.post("/v1/chat/completions", json=body, headers=headers) as answer:
                    assert answer.headers.get("Access-Control-Allow-Origin") == expected
                    await answer.read()


async def test_a_named_page_may_read_why_it_was_refused():
    async with running(FakeBackend(), cors_allowed_origins=["https://a.example"], api_key="key") as fleet:
        for origin, expected in [("https://a.example", "https://a.example"), ("https://b.example", None)]:
            async with fleet.client.post("/v1/completions", json={}, headers={"Origin": origin}) as answer:
                assert (answer.status, answer.headers.get("Access-Control-Allow-Origin")) == (401, expected)


async def test_no_key_and_no_prompt_stands_in_the_log(caplog):
    caplog.set_level("DEBUG")
    async with running(FakeBackend(), api_key="s3cret", admin_api_key="4dmin", resume_streams=True) as fleet:
        fleet.client.headers["Authorization"] = "Bearer s3cret"
        async with fleet.client.post("/v1/chat/completions", json=chat("my own words", stream=True)) as answer:
            await answer.read()
        async with fleet.client.post("/v1/chat/completions", data=b'{"messages": "my own words"') as answer:
            assert answer.status == 400
        async with fleet.client.get("/workers", headers={"Authorization": "Bearer 4dmin"}) as answer:
            assert answer.status == 200
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert not any(secret in said for secret in ("s3cret", "4dmin", "my own words"))


async def test_admin_calls_are_logged_when_asked_for(caplog):
    caplog.set_level("INFO", "router.auth")
    keys = {"control_plane_api_keys": ["1:alice:admin:s3cret"], "control_plane_audit_enabled": True}
    async with running(**keys) as fleet:
        for key, status in [("s3cret", 200), ("other", 401)]:
            async with fleet.client.get("/workers", headers={"Authorization": f"Bearer {key}"}) as answer:
                assert answer.status == status
    assert [record.getMessage() for record in caplog.records] == ["admin: GET /workers by alice from 127.0.0.1"]
