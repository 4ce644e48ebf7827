"""HTTPS towards clients and backends, with an authority of one's own and certificates on both sides."""

from __future__ import annotations

import ssl

import aiohttp
import pytest

from router.app import Router
from router.config import ConfigError, RouterConfig
from router.fleet.worker import Health
from tests.router.certificates import Pair, make_authority, make_signed
from tests.router.conftest import chat, running, until
from tests.router.fake_backend import FakeBackend


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Pair:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority, tmp_path_factory) -> Pair:
    return make_signed(tmp_path_factory.mktemp("ours"), authority, "ours")


def serving(pair: Pair, clients: Pair | None = None) -> ssl.SSLContext:
    """A backend's side; with ``clients`` only those may connect that this authority has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients.cert)
    return context


async def test_clients_are_served_over_https(authority, ours):
    trusting = ssl.create_default_context(cafile=str(authority.cert))
    async with running(FakeBackend(), **ours.flags("tls")) as fleet:
        connector = aiohttp.TCPConnector(ssl=trusting)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{fleet.router.port}", connector=connector) as client:
            for stream in (True, False):
                body = chat("x" * 300_000, stream=stream, max_tokens=50)
                async with client.post("/v1/chat/completions", json=body) as answer:
                    assert answer.status == 200
                    assert b"tok" in await answer.read()
            async with client.get("/readiness") as answer:
                assert answer.status == 200
        assert fleet.backends[0].received[0].header("X-Forwarded-Proto") == "https"


async def test_a_client_that_speaks_plain_http_to_it_gets_nothing(ours):
    async with running(FakeBackend(), **ours.flags("tls")) as fleet:
        with pytest.raises(aiohttp.ClientError):
            await fleet.client.get("/readiness")


async def test_a_backend_is_reached_over_https_by_the_authority_given(authority, ours):
    backend = FakeBackend(tls=serving(ours))
    async with (
        running(backend, ca_cert_paths=[str(authority.cert)]) as fleet,
        fleet.client.post("/v1/chat/completions", json=chat("hi", stream=True)) as answer,
    ):
        assert answer.status == 200
        assert (await answer.read()).endswith(b"[DONE]\n\n")


async def test_a_backend_that_nobody_known_has_signed_gets_no_request(ours):
    backend = FakeBackend(tls=serving(ours))
    async with running(backend, ready=False, disable_health_check=True) as fleet:
        async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
            assert answer.status == 502
        assert not backend.received


@pytest.mark.parametrize("shown", [True, False])
async def test_a_backend_may_ask_who_the_router_is(authority, ours, shown):
    backend = FakeBackend(tls=serving(ours, clients=authority))
    more = ours.flags("client") if shown else {}
    async with running(backend, ready=False, ca_cert_paths=[str(authority.cert)], **more) as fleet:
        (worker,) = fleet.router.registry.all()
        if shown:
            await until(lambda: worker.health is Health.HEALTHY)
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status == 200
        else:
            async with fleet.client.post("/v1/chat/completions", json=chat("hi")) as answer:
                assert answer.status in (502, 503)
            assert not backend.received


def test_files_that_do_not_do_are_named(ours, tmp_path):
    for flags, named in [
        ({"tls_cert_path": str(ours.cert)}, "--tls-key-path is missing"),
        ({"tls_key_path": str(ours.key)}, "--tls-cert-path is missing"),
        ({"tls_cert_path": "/no/such", "tls_key_path": str(ours.key)}, "/no/such cannot be read"),
        ({"tls_cert_path": str(ours.key), "tls_key_path": str(ours.cert)}, "do not work together"),
        ({"client_cert_path": str(ours.cert)}, "--client-key-path is missing"),
        ({"ca_cert_paths": ["/no/such"]}, "/no/such does not exist"),
        ({"ca_cert_paths": [str(ours.key)]}, "holds no certificate"),
    ]:
        with pytest.raises(ConfigError, match=named):
            Router(RouterConfig(**flags))
