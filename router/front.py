"""The first thing every request meets: its key is checked, its route told, and refusals become answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from router.auth import Auth
from router.body import INFERENCE_ROUTES
from router.client_paths import clients_may_ask, ends_others
from router.control import ControlPlane
from router.cors import Cors
from router.errors import Refusal
from router.gateway import Gateway
from router.http.message import Pairs, Reply, Request
from router.http.response import ResponseWriter
from router.http.server import Turn
from router.metrics import Metrics

LARGE_BODY = 65536  # bytes; a smaller one is there when its head is

log = logging.getLogger(__name__)


class Front:
    """The service behind the listening socket."""

    def __init__(self, auth: Auth, cors: Cors, control: ControlPlane, gateway: Gateway, metrics: Metrics) -> None:
        self._auth = auth
        self._cors = cors
        self._control = control
        self._gateway = gateway
        self._metrics = metrics

    def look(self, request: Request) -> Reply | None:
        """Before the body is read: may this client ask at all?"""
        allowed = self._cors.preflight(request.method, request.headers)
        if allowed is not None:
            return Reply(204, lines=_lines(allowed))
        try:
            self._auth.check(request)
            if request.path not in INFERENCE_ROUTES and self._for_operators(request):
                self._auth.check_admin(request)
            if _announces_much(request):
                self._gateway.look(request)
        except Refusal as refusal:
            pairs = _pairs(self._cors.headers(request.headers))  # a page may read why
            return refusal.reply(pairs, path=request.path)
        return None

    def _for_operators(self, request: Request) -> bool:
        """The router's own routes for operators say so themselves."""
        if self._control.owns(request.method, request.path):
            return ends_others(request.path)
        return not clients_may_ask(request.path)

    def serve(self, request: Request, client: ResponseWriter, turn: Turn) -> None:
        """Answer from the control plane or from a backend."""
        if "origin" in request.headers:
            client.lines = _lines(self._cors.headers(request.headers))
        if request.path not in INFERENCE_ROUTES and self._control.owns(request.method, request.path):
            turn.run(_answer(self._control, request, client))
        else:
            self._gateway.serve(request, client, turn)

    def failed(self, request: Request, client: ResponseWriter, error: Exception) -> None:
        _failed(request, client, error)

    def refused(self, reply: Reply) -> None:
        """Count what was answered to a request that nobody served."""
        self._metrics.refused(reply.status)


def _announces_much(request: Request) -> bool:
    """Is there a body to come that is better not read in vain?"""
    if request.path not in INFERENCE_ROUTES:
        return False
    length = request.headers.get("content-length", "")
    return "expect" in request.headers or (length.isdigit() and int(length) > LARGE_BODY)


def _pairs(headers: Mapping[str, str]) -> Pairs:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _lines(headers: Mapping[str, str]) -> bytes:
    return b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers.items())


class MetricsFront:
    """The service behind the separate metrics port."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    def look(self, _request: Request) -> Reply | None:
        """Everybody may ask."""
        return None

    def serve(self, request: Request, client: ResponseWriter, turn: Turn) -> None:
        """Answer, also with 404."""
        turn.run(_answer(self._control, request, client))

    def failed(self, request: Request, client: ResponseWriter, error: Exception) -> None:
        _failed(request, client, error)

    def refused(self, reply: Reply) -> None:
        """Not counted."""


async def _answer(control: ControlPlane, request: Request, client: ResponseWriter) -> None:
    client.reply(await control.ask(request))


def _failed(request: Request, client: ResponseWriter, error: Exception) -> None:
    log.error("a defect of the router ended a request to %s", request.path, exc_info=error)
    if client.begun:
        client.break_off()
    else:
        refusal = Refusal(500, "The router failed.", kind="internal_error", code="internal_error")
        client.reply(refusal.reply(path=request.path))
