"""One backend as the router knows it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_NEVER_NULL = frozenset({"priority", "cost", "labels", "disable_health_check"})
_HOST = re.compile(r"[\w.:%-]+")


class Health(StrEnum):
    STARTING = "starting"  # has not answered a health check yet
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


def worker_url(text: str) -> str:
    """``HOST:PORT`` or ``http(s)://HOST[:PORT]`` as a normal URL without a trailing slash. Raises ``ValueError``."""
    wrong = ValueError(f"worker {text!r} must be HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or (port is None and "://" not in text):
        raise wrong
    alone = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    if not alone or not _HOST.fullmatch(parts.hostname):
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or (443 if parts.scheme == 'https' else 80)}"


class WorkerSpec(BaseModel):
    """How to reach and watch a worker: the body of ``POST /workers``."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    url: Annotated[str, AfterValidator(worker_url)]
    api_key: str | None = Field(default=None, repr=False)
    model_id: str | None = None  # when set it is what the worker serves, whatever it reports
    priority: int = 50
    cost: float = 1.0
    worker_type: Literal["regular"] = "regular"
    runtime: str | None = None
    labels: dict[str, str] = {}
    health_check_timeout_secs: float | None = Field(default=None, gt=0)
    health_check_interval_secs: float | None = Field(default=None, gt=0)
    health_success_threshold: int | None = Field(default=None, ge=1)
    health_failure_threshold: int | None = Field(default=None, ge=1)
    disable_health_check: bool = False
    max_concurrent_requests: int | None = Field(default=None, ge=1)  # in place of the flag for all workers

    # Sent by clients of SGLang's router, and without a use here: the router parses no answers, and backends render.
    bootstrap_port: int | None = None
    tokenizer_path: str | None = None
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    chat_template: str | None = None
    max_connection_attempts: int | None = None
    dp_aware: Literal[False] | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        """Clients that know all fields send null for those they do not set."""
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class WorkerChange(BaseModel):
    """What may be changed of a worker: the body of ``PUT /workers/{id}``. Fields as in :class:`WorkerSpec`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    api_key: str | None = Field(default=None, repr=False)
    priority: int = 50
    cost: float = 1.0
    labels: dict[str, str] = {}
    health_check_timeout_secs: float | None = Field(default=None, gt=0)
    health_check_interval_secs: float | None = Field(default=None, gt=0)
    health_success_threshold: int | None = Field(default=None, ge=1)
    health_failure_threshold: int | None = Field(default=None, ge=1)
    disable_health_check: bool = False
    max_concurrent_requests: int | None = Field(default=None, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unnamed(cls, data: Any) -> Any:
        """But for the fields of which null says something: no key, no limit, the time of the flag."""
        return (
            {k: v for k, v in data.items() if v is not None or k not in _NEVER_NULL} if isinstance(data, dict) else data
        )


@dataclass(slots=True, eq=False)
class Worker:
    """A worker in the fleet. The registry owns the set, the health monitor owns ``health`` and the models."""

    spec: WorkerSpec
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    health: Health = Health.STARTING
    gone: bool = False  # at the last check nobody listened at its address
    problem: str = ""  # what the last health check met, for the log and /workers
    draining: bool = False  # gets no new requests, by an operator's order
    models: dict[str, dict[str, Any]] = field(default_factory=dict)  # model cards by id; empty: not known
    notes: dict[str, Callable[[], Any]] = field(default_factory=dict)  # what others found out: shown in /workers
    on_change: Callable[[], None] | None = field(default=None, repr=False)  # told when a field was set

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if (told := getattr(self, "on_change", None)) is not None:
            told()

    @property
    def url(self) -> str:
        """Also the worker's name towards policies and leases: the same in every replica and after a restart."""
        return self.spec.url

    @property
    def auth(self) -> dict[str, str]:
        """The header that this worker's own key needs."""
        return {"Authorization": f"Bearer {self.spec.api_key}"} if self.spec.api_key else {}

    @property
    def takes_requests(self) -> bool:
        return self.health is Health.HEALTHY and not self.draining

    @property
    def names(self) -> list[str]:
        """The models it serves, as far as known."""
        return [self.spec.model_id] if self.spec.model_id is not None else list(self.models)

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        """The model cards under the names that it serves."""
        name = self.spec.model_id
        if name is None:
            return self.models
        told = self.models.get(name) or next(iter(self.models.values()), {"object": "model", "created": 0})
        return {name: {**told, "id": name}}

    def may_serve(self, model: str) -> bool:
        """False only when the worker is known to serve other models and not this one."""
        if self.spec.model_id is not None:
            return model == self.spec.model_id
        return not self.models or model in self.models or model.partition(":")[0] in self.models
