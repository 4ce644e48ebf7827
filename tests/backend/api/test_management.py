"""Health, information, loads, the cache, keys and metrics."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.api.app import create_app
from backend.api.context import Phase, ServerContext
from backend.api.keys import STEERING_PATHS
from backend.config import ServerArgs
from backend.frontend import RequestError
from backend.messages import Finish, FromScheduler
from tests.backend.api.conftest import MODEL, Backend, StartBackend
from tests.backend.byte_tokenizer import ByteTokenizer
from tests.backend.fake_scheduler import STUCK_TOKEN

ids = ByteTokenizer().encode


@pytest.mark.parametrize("path", ["/health", "/health_generate", "/ready", "/ping"])
async def test_health(backend: Backend, path: str) -> None:
    assert (await backend.http.get(path)).status_code == 200


@pytest.fixture
def distrustful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health routes trust nothing that they heard before."""
    monkeypatch.setattr("backend.frontend.frontend.HEARD_SECONDS", 0.0)


@pytest.mark.usefixtures("distrustful")
@pytest.mark.parametrize("path", ["/health", "/health_generate"])
async def test_a_scheduler_that_stands_still_is_not_healthy(
    backend: Backend, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.api.management.HEALTH_SECONDS", 0.05)
    backend.engine.going.clear()
    response = await backend.http.get(path)
    backend.engine.going.set()
    assert response.status_code == 503
    assert "within 0 seconds" in response.text or "for 0 seconds" in response.text


@pytest.mark.usefixtures("distrustful")
async def test_health_takes_any_word_of_the_scheduler(backend: Backend) -> None:
    assert (await backend.http.get("/health")).status_code == 200
    assert backend.engine.received == []


async def test_a_scheduler_that_spoke_lately_is_healthy(backend: Backend) -> None:
    await backend.http.get("/health_generate")
    backend.engine.going.clear()  # it is busy with a long step
    response = await backend.http.get("/health")
    backend.engine.going.set()
    assert response.status_code == 200


@pytest.mark.parametrize("refused", [False, True])
async def test_a_busy_backend_is_healthy_when_others_get_tokens(backend: Backend, refused: bool) -> None:
    backend.engine.slots = 1
    body = {"input_ids": [*ids("a"), STUCK_TOKEN], "stream": True}
    async with backend.http.stream("POST", "/generate", json=body):
        asked = asyncio.create_task(backend.http.get("/health_generate"))
        async with asyncio.timeout(10):
            while len(backend.engine.received) < 2:  # the probe waits behind the one that has the slot
                await backend.frontend.flush_cache()
        busy, probe = (request.uid for request in backend.engine.received)
        if refused:
            backend.engine.running.pop(probe)
            full = Finish(probe, "abort", message="The request queue is full.", status_code=503)
            backend.frontend.dispatch(FromScheduler(finished=[full]))
            await asyncio.sleep(0)
        backend.frontend.dispatch(FromScheduler(uids=[busy], tokens=ids("b")))
        assert (await asyncio.wait_for(asked, 10)).status_code == 200


async def test_health_generate_runs_a_token(backend: Backend) -> None:
    await backend.http.get("/health_generate")
    assert backend.engine.stats.decode_tokens_total == 1


@pytest.mark.parametrize("path", ["/health", "/health_generate", "/v1/models", "/metrics", "/model_info"])
@pytest.mark.parametrize(("phase", "told"), [(Phase.STARTING, "starting"), (Phase.STOPPING, "stopping")])
async def test_not_ready_is_a_503_that_says_why(backend: Backend, path: str, phase: Phase, told: str) -> None:
    backend.context.phase = phase
    response = await backend.http.get(path)
    backend.context.phase = Phase.READY
    assert response.status_code == 503
    assert told in response.text
    assert response.headers["retry-after"] == "1"


async def test_a_lost_scheduler_fails_those_who_wait_and_those_who_come(backend: Backend) -> None:
    backend.frontend.fail(RequestError("The scheduler process ended unexpectedly.", 503))
    response = await backend.http.post("/generate", json={"text": "hi"})
    assert response.status_code == 503
    assert "ended unexpectedly" in response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/get_model_info", "/model_info"])
async def test_model_info(backend: Backend, path: str) -> None:
    info = (await backend.http.get(path)).json()
    assert info["model_path"] == "/models/echo"
    assert info["served_model_name"] == MODEL
    assert info["is_generation"] is True


@pytest.mark.parametrize("path", ["/get_server_info", "/server_info"])
async def test_server_info_tells_settings_without_the_key(start_backend: StartBackend, path: str) -> None:
    async with start_backend(api_key="secret", max_prefill_tokens=77) as backend:
        response = await backend.http.get(path, headers={"Authorization": "Bearer secret"})
        info = response.json()
        assert (info["max_prefill_tokens"], info["max_total_num_tokens"]) == (77, 100_000)
        assert "last_gen_throughput" in info["internal_states"][0]
        assert "secret" not in response.text


async def test_loads(backend: Backend) -> None:
    body = {"text": "hello", "sampling_params": {"max_new_tokens": 2}}
    await backend.http.post("/generate", json=body)
    await backend.http.post("/generate", json=body)
    answer = (await backend.http.get("/v1/loads")).json()
    load = answer["loads"][0]
    assert load["dp_rank"] == 0
    assert (load["num_running_reqs"], load["num_waiting_reqs"], load["max_total_num_tokens"]) == (0, 0, 100_000)
    assert load["cache_hit_rate"] == pytest.approx(0.4)
    text = (await backend.http.get("/v1/loads?format=prometheus")).text
    assert "sglang:num_running_reqs 0.0" in text.splitlines()
    legacy = (await backend.http.get("/get_load")).json()
    assert legacy == [{"dp_rank": 0, "num_reqs": 0, "num_waiting_reqs": 0, "num_tokens": 0}]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_flush_cache(backend: Backend, method: str) -> None:
    body = {"text": "hello", "sampling_params": {"max_new_tokens": 1}}
    await backend.http.post("/generate", json=body)
    response = await backend.http.request(method, "/flush_cache")
    assert (response.status_code, response.text) == (200, "Cache flushed.\n")
    again = await backend.http.post("/generate", json=body)
    assert again.json()["meta_info"]["cached_tokens"] == 0


async def test_the_cache_is_not_flushed_while_requests_run(backend: Backend) -> None:
    async with backend.http.stream("POST", "/generate", json={"input_ids": [*ids("a"), STUCK_TOKEN], "stream": True}):
        response = await backend.http.post("/flush_cache?timeout=0.01")
        assert response.status_code == 400
        assert "1 requests are running" in response.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"Authorization": "bearer secret"}, 200),
        ({"Authorization": b"Bearer \xff\xfe"}, 401),
    ],
)
async def test_api_key(start_backend: StartBackend, headers: dict[str, str | bytes], status: int) -> None:
    async with start_backend(api_key="secret") as backend:
        response = await backend.http.get("/v1/models", headers=headers)
        assert response.status_code == status
        unknown = await backend.http.get("/no/such/route", headers=headers)
        assert unknown.status_code == (404 if status == 200 else 401)
        for path in ("/health", "/metrics"):
            assert (await backend.http.get(path)).status_code == 200


STEERING = ["/flush_cache", "/abort_request", "/pause_generation", "/continue_generation", "/stop_profile"]


@pytest.mark.parametrize("path", STEERING)
@pytest.mark.parametrize("key", [None, "user"])
async def test_an_admin_key_guards_the_routes_that_steer(
    start_backend: StartBackend, path: str, key: str | None
) -> None:
    async with start_backend(api_key=key, admin_api_key="root") as backend:
        for given in (None, "user", "root", "else"):
            headers = {} if given is None else {"Authorization": f"Bearer {given}"}
            steered = await backend.http.post(path, json={}, headers=headers)
            assert (steered.status_code != 401) == (given == "root"), given
            if steered.status_code == 401:
                assert "admin API key" in steered.text
            asked = await backend.http.get("/v1/models", headers=headers)
            assert asked.status_code == (200 if key is None or given in ("user", "root") else 401)
        await backend.http.post("/continue_generation", headers={"Authorization": "Bearer root"})
        assert "root" not in (await backend.http.get("/server_info", headers={"Authorization": "Bearer root"})).text


def test_every_route_that_steers_has_a_key() -> None:
    """What a client may not do to others: routes without a prompt that change something."""
    posts = {
        route.resource.canonical
        for route in create_app(ServerContext(ServerArgs())).router.routes()
        if route.method == "POST" and route.resource is not None
    }
    assert set(STEERING) | {"/start_profile"} == STEERING_PATHS
    assert posts >= STEERING_PATHS


async def samples(backend: Backend) -> dict[str, float]:
    """Value by name and labels that matter."""
    text = (await backend.http.get("/metrics")).text
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["model_name"] == MODEL
            rest = [
                sample.labels[key] for key in ("is_streaming", "mode", "cache_source", "le") if key in sample.labels
            ]
            found[".".join([sample.name, *rest])] = sample.value
    return found


async def test_metrics(backend: Backend) -> None:
    body = {"text": "hello", "sampling_params": {"max_new_tokens": 4}}
    await backend.http.post("/generate", json=body)
    await backend.http.post("/generate", json={**body, "stream": True})
    found = await samples(backend)
    assert found["sglang:num_requests_total.true"] == found["sglang:num_requests_total.false"] == 1
    assert found["sglang:prompt_tokens_total.true"] == 5
    assert found["sglang:generation_tokens_total.false"] == 4
    assert found["sglang:cached_tokens_total.device"] == 4
    assert found["sglang:time_to_first_token_seconds_count.true"] == 1
    assert found["sglang:e2e_request_latency_seconds_count.false"] == 1
    assert found["sglang:inter_token_latency_seconds_count"] == 6
    assert found["sglang:realtime_tokens_total.decode"] == 8
    assert found["sglang:cache_hit_rate"] == pytest.approx(0.4)
    assert found["sglang:decode_throughput"] > 0
    assert found["sglang:max_total_num_tokens"] == 100_000
    assert found["sglang:queue_time_seconds_count"] == 2
    assert found["vllm:prompt_tokens_total.true"] == 5
    assert found["vllm:time_to_first_token_seconds_count.true"] == 1
    assert found["vllm:num_requests_running"] == found["sglang:num_paused_reqs"] == 0


async def test_the_histograms_have_the_buckets_of_the_dashboards(backend: Backend) -> None:
    await backend.http.post("/generate", json={"text": "hi"})
    found = await samples(backend)
    ttft = [
        name.split(".", 2)[2] for name in found if name.startswith("sglang:time_to_first_token_seconds_bucket.false.")
    ]
    assert ttft[:3] == ["0.1", "0.2", "0.4"]
    assert ttft[-2:] == ["400.0", "+Inf"]
    assert "sglang:inter_token_latency_seconds_bucket.0.002" in found
    assert "sglang:e2e_request_latency_seconds_bucket.false.2400.0" in found


async def test_aborted_requests_are_counted(backend: Backend) -> None:
    async with backend.http.stream("POST", "/generate", json={"input_ids": [*ids("a"), STUCK_TOKEN]}):
        pass
    await backend.nothing_runs()
    assert (await samples(backend))["sglang:num_aborted_requests_total"] == 1


async def test_probes_do_not_count(backend: Backend) -> None:
    await backend.http.get("/health_generate")
    found = await samples(backend)
    assert found["sglang:num_requests_total.false"] == found["sglang:time_to_first_token_seconds_count.false"] == 0


async def test_gauges_without_labels(backend: Backend) -> None:
    lines = (await backend.http.get("/metrics?labels=none")).text.splitlines()
    values = dict(line.split() for line in lines if not line.startswith("#"))
    assert not any("{" in name for name in values)
    for name in ("num_running_reqs", "num_waiting_reqs", "decode_throughput", "prefill_throughput", "token_usage"):
        assert f"sglang:{name}" in values


async def test_an_observed_request_is_told_while_it_runs(backend: Backend) -> None:
    async with backend.http.stream("POST", "/generate", json={"input_ids": [*ids("a"), STUCK_TOKEN], "stream": True}):
        assert (await backend.http.get("/get_load")).json()[0]["num_reqs"] == 1
