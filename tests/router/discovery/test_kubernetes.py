"""Endpoints of a cluster, read through the real client from a fake API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from router.fleet.discovery import kubernetes as discovery
from router.fleet.discovery.kubernetes import DiscoveryError, KubernetesSettings, KubernetesSource
from router.fleet.discovery.membership import Membership
from router.fleet.discovery.slices import Slices
from router.fleet.registry import Registry

client = pytest.importorskip("kubernetes.client")

NOT_READY = {"ready": False, "serving": True}
LEAVING = {"ready": True, "terminating": True}


def endpoints(name: str, *addresses: str, conditions: dict | None = None, port: int | None = 30000) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "llm"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": conditions or {}} for address in addresses],
        "ports": [{"name": "metrics", "port": 9}, {"name": "http", "port": port}] if port else [],
    }


class FakeApi:
    """The part of an API server that lists and watches EndpointSlices."""

    def __init__(self) -> None:
        self.slices: list[dict] = []
        self.events: asyncio.Queue[dict | None] = asyncio.Queue()  # None: this watch ends
        self.asked: list[tuple[str, dict]] = []
        self.status = 200

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query)))
        if self.status != 200:
            return web.json_response({"kind": "Status", "message": "no"}, status=self.status)
        if request.query.get("watch", "").lower() != "true":
            meta = {"resourceVersion": str(len(self.asked))}
            listed = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": meta}
            return web.json_response({**listed, "items": self.slices})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while (event := await self.events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/{rest:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def watching(api: FakeApi, **settings) -> AsyncIterator[Registry]:
    registry = Registry()
    async with api.running() as url:
        configuration = client.Configuration(host=url)
        configuration.retries = False
        source = KubernetesSource(
            KubernetesSettings(**settings),
            Membership(registry, "test"),
            client.DiscoveryV1Api(client.ApiClient(configuration)),
        )
        source.start()
        try:
            yield registry
        finally:
            source.close()


async def become(registry: Registry, *addresses: str) -> None:
    async with asyncio.timeout(20):
        while {worker.url for worker in registry.all()} != {f"http://{a}" for a in addresses}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_endpoints_come_and_go_with_the_watch():
    api = FakeApi()
    api.slices = [endpoints("one", "10.0.0.1", "10.0.0.2")]
    async with watching(api, selector=["app=llm", "tier=gpu"], namespace="llm") as registry:
        await become(registry, "10.0.0.1:30000", "10.0.0.2:30000")
        path, query = api.asked[0]
        assert path == "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices"
        assert query["labelSelector"] == "app=llm,tier=gpu"
        api.events.put_nowait({"type": "ADDED", "object": endpoints("two", "10.0.0.3")})
        await become(registry, "10.0.0.1:30000", "10.0.0.2:30000", "10.0.0.3:30000")
        api.events.put_nowait({"type": "MODIFIED", "object": endpoints("one", "10.0.0.2", conditions=NOT_READY)})
        await become(registry, "10.0.0.3:30000")
        api.events.put_nowait({"type": "DELETED", "object": endpoints("two", "10.0.0.3")})
        await become(registry)


async def test_a_watch_that_ends_goes_on_and_one_that_is_too_old_begins_anew():
    api = FakeApi()
    async with watching(api) as registry:
        api.events.put_nowait({"type": "ADDED", "object": endpoints("one", "10.0.0.1")})
        await become(registry, "10.0.0.1:30000")
        api.events.put_nowait(None)
        api.events.put_nowait({"type": "ADDED", "object": endpoints("two", "10.0.0.2")})
        await become(registry, "10.0.0.1:30000", "10.0.0.2:30000")
        assert api.asked[0][0] == "/apis/discovery.k8s.io/v1/endpointslices"
        api.slices = [endpoints("three", "10.0.0.3")]
        gone = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}
        for _ in range(2):  # the client itself takes up a watch once
            api.events.put_nowait({"type": "ERROR", "object": gone})
        await become(registry, "10.0.0.3:30000")


async def test_while_the_server_is_away_the_workers_stay(monkeypatch):
    monkeypatch.setattr(discovery, "RETRY_SECONDS", 0.01)
    api = FakeApi()
    api.slices = [endpoints("one", "10.0.0.1")]
    async with watching(api) as registry:
        await become(registry, "10.0.0.1:30000")
        api.status = 503
        before = len(api.asked)
        api.events.put_nowait(None)
        async with asyncio.timeout(20):
            while len(api.asked) < before + 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert [worker.url for worker in registry.all()] == ["http://10.0.0.1:30000"]
        api.status, api.slices = 200, [endpoints("one", "10.0.0.9")]
        await become(registry, "10.0.0.9:30000")


async def test_a_watch_of_a_server_that_fell_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(discovery, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(discovery, "WATCH_SECONDS", 1)
    monkeypatch.setattr(discovery, "LIST_SECONDS", 1)
    api = FakeApi()
    api.slices = [endpoints("one", "10.0.0.1")]
    async with watching(api) as registry:
        await become(registry, "10.0.0.1:30000")
        api.slices = [endpoints("one", "10.0.0.2")]
        await become(registry, "10.0.0.2:30000")


@pytest.mark.parametrize(
    ("item", "port", "expected"),
    [
        (endpoints("s", "10.0.0.1"), None, ["http://10.0.0.1:30000"]),
        (endpoints("s", "10.0.0.1"), 8000, ["http://10.0.0.1:8000"]),
        (endpoints("s", "fd00::1"), None, ["http://[fd00::1]:30000"]),
        (endpoints("s", "10.0.0.1", conditions=LEAVING), None, []),
        (endpoints("s", "10.0.0.1", conditions=NOT_READY), None, []),
        (endpoints("s", "10.0.0.1", port=None), None, []),
        ({"metadata": {}, "endpoints": None, "ports": [{"port": 1}]}, None, []),
        ({**endpoints("s", "host.example"), "addressType": "FQDN"}, None, []),
    ],
)
def test_addresses_of_a_slice(item, port, expected):
    slices = Slices(port)
    slices.changed("ADDED", item)
    assert [worker.url for worker in slices.workers()] == expected


def test_an_address_in_two_slices_is_one_worker():
    slices = Slices(None)
    slices.reset([endpoints("one", "10.0.0.1"), endpoints("two", "10.0.0.1")])
    assert len(slices.workers()) == 1
    slices.changed("DELETED", endpoints("one"))
    assert len(slices.workers()) == 1


def test_without_a_cluster_the_reason_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(DiscoveryError, match="no way to a cluster"):
        KubernetesSource(KubernetesSettings(), Membership(Registry(), "test")).start()
