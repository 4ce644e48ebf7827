"""What the routes share: the settings, how far the server is, and the frontend once there is one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus

from aiohttp import web

from backend.api.metrics import Metrics
from backend.api.parsers.choice import ParserChoice
from backend.config import ServerArgs
from backend.frontend.errors import RequestError
from backend.frontend.frontend import Frontend
from backend.loader.classes import Classes
from backend.loader.sentence_model import Pooling
from backend.messages import SchedulerReady


class Phase(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    FAILED = "failed"


_UNAVAILABLE = {
    Phase.STARTING: "The server is starting: the model is not loaded yet.",
    Phase.RESTARTING: "The scheduler process died and is being started again: the model is not loaded yet.",
    Phase.STOPPING: "The server is stopping and takes no more requests.",
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What there is to say about the model; see ``/model_info``."""

    name: str  # as clients ask for it
    path: str
    tokenizer_path: str
    model_type: str = ""
    architectures: tuple[str, ...] = ()
    hidden_size: int = 0  # of an embedding
    pooling: Pooling = field(default_factory=Pooling)  # how an embedding is made of the hidden states
    classes: Classes | None = None  # of a classifier


@dataclass(frozen=True, slots=True)
class Serving:
    """What there is once the model is loaded."""

    frontend: Frontend
    model: ServedModel
    ready: SchedulerReady
    metrics: Metrics
    parsers: ParserChoice = field(default_factory=ParserChoice)
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)  # of the OpenAI routes


@dataclass(slots=True)
class ServerContext:
    """Owned by the server, which moves ``phase`` on; the routes read it."""

    args: ServerArgs
    phase: Phase = Phase.STARTING
    failure: str = ""  # why, once failed
    loaded: Serving | None = None
    created: float = field(default_factory=time.time)

    def serving(self) -> Serving:
        """What is served, while the server is ready. Raises :class:`RequestError` (503) in every other phase."""
        if self.phase is not Phase.READY or self.loaded is None:
            message = _UNAVAILABLE.get(self.phase, self.failure)
            raise RequestError(message, HTTPStatus.SERVICE_UNAVAILABLE)
        return self.loaded


CONTEXT = web.AppKey("context", ServerContext)
