"""Every setting of the router, with its default. ``router/flags.py`` gives each one its flag."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from policies import PolicyOptions
from router.fleet.worker import worker_url
from router.headers import NOT_ON, REQUEST_ID_HEADERS

MIB = 1024 * 1024
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/*?#]+")


class ConfigError(ValueError):
    """A configuration that cannot be used; one sentence for the user."""


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """When a worker counts as well. Times in seconds, thresholds in checks in a row."""

    disabled: bool = False
    endpoint: str = "/health"
    interval: float = 5.0
    timeout: float = 5.0
    failures: int = 3
    successes: int = 2


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How often one request may be sent, and the pauses before a worker is tried again. Times in seconds."""

    attempts: int = 5
    initial_backoff: float = 0.05
    max_backoff: float = 30.0
    multiplier: float = 1.5
    jitter: float = 0.2


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """``failures`` in a row open it, ``successes`` of probes close it; the cool-down doubles up to its limit."""

    disabled: bool = False
    failures: int = 3
    successes: int = 1
    cool_down: float = 0.5
    max_cool_down: float = 2.5


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Limits on what is let in; None or 0: no limit. Rates are a second's, times in seconds."""

    requests: int | None = None  # at a time
    requests_per_key: int | None = None
    requests_per_worker: int | None = None
    queue_size: int = 100
    queue_timeout: float = 60.0
    request_rate: float | None = None
    token_rate: float | None = None  # of prompt tokens
    request_rate_per_key: float | None = None
    token_rate_per_key: float | None = None

    @property
    def any(self) -> bool:
        """Is there any limit at all?"""
        return bool(
            self.requests or self.requests_per_key or self.requests_per_worker or self.request_rate
            or self.token_rate or self.request_rate_per_key or self.token_rate_per_key
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of one exchange with a backend, in seconds; None: no limit."""

    connect: float = 5.0
    first_byte: float | None = None
    idle: float | None = 300.0
    total: float | None = 1800.0


class RouterConfig(BaseModel):
    """The router's settings, named as their flags."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    host: str = "0.0.0.0"
    port: int = Field(default=8080, ge=0, le=65535)
    router_hosts: list[str] = []
    workers_file: str | None = None
    service_discovery: bool = False
    selector: list[str] = []
    service_discovery_port: int | None = Field(default=None, ge=1, le=65535)
    service_discovery_namespace: str | None = None
    workers: int = Field(default=1, ge=1, le=64)
    max_payload_size: int = Field(default=64 * MIB, ge=1)
    request_id_headers: list[str] = list(REQUEST_ID_HEADERS)

    policy: str = "cache_aware"
    prefix_index_bytes: int = Field(default=256 * MIB, ge=1)
    seed: int | None = None
    max_tree_size: int | None = Field(default=None, ge=1)
    cache_threshold: float | None = Field(default=None, ge=0, le=1)
    balance_abs_threshold: int | None = Field(default=None, ge=0)
    balance_rel_threshold: float | None = Field(default=None, ge=1)
    prefix_token_count: int = Field(default=256, ge=1)
    prefix_hash_load_factor: float = Field(default=1.25, ge=1)
    max_idle_secs: float = Field(default=14400.0, gt=0)
    assignment_mode: str = "random"
    bucket_adjust_interval_secs: float = Field(default=5.0, gt=0)
    request_usage: bool = False
    record_trace: str | None = None
    shadow_policy: str | None = None

    connect_timeout_secs: float = Field(default=5.0, gt=0)
    first_byte_timeout_secs: float = Field(default=0.0, ge=0)
    stream_idle_timeout_secs: float = Field(default=300.0, ge=0)
    request_timeout_secs: float = Field(default=1800.0, ge=0)

    retry_max_retries: int = Field(default=5, ge=1)
    retry_initial_backoff_ms: float = Field(default=50, ge=0)
    retry_max_backoff_ms: float = Field(default=30000, ge=0)
    retry_backoff_multiplier: float = Field(default=1.5, ge=1)
    retry_jitter_factor: float = Field(default=0.2, ge=0, le=1)
    disable_retries: bool = False
    resume_streams: bool = False

    cb_failure_threshold: int = Field(default=3, ge=1)
    cb_success_threshold: int = Field(default=1, ge=1)
    cb_timeout_duration_secs: float = Field(default=2.5, gt=0)
    disable_circuit_breaker: bool = False
    first_byte_probe_secs: float = Field(default=0.8, ge=0)

    max_concurrent_requests: int = Field(default=-1, ge=-1)
    max_concurrent_requests_per_key: int = Field(default=0, ge=0)
    max_concurrent_requests_per_worker: int = Field(default=0, ge=0)
    queue_size: int = Field(default=100, ge=0)
    queue_timeout_secs: float = Field(default=60.0, ge=0)
    rate_limit_tokens_per_second: float | None = Field(default=None, ge=0)
    rate_limit_prompt_tokens_per_second: float | None = Field(default=None, ge=0)
    key_rate_limit_requests_per_second: float | None = Field(default=None, ge=0)
    key_rate_limit_prompt_tokens_per_second: float | None = Field(default=None, ge=0)

    health_check_endpoint: str = "/health"
    health_check_interval_secs: float = Field(default=5.0, gt=0)
    health_check_timeout_secs: float = Field(default=5.0, gt=0)
    health_failure_threshold: int = Field(default=3, ge=1)
    health_success_threshold: int = Field(default=2, ge=1)
    disable_health_check: bool = False

    api_key: str | None = Field(default=None, repr=False)
    api_key_file: str | None = None
    admin_api_key: str | None = Field(default=None, repr=False)
    control_plane_api_keys: list[str] = Field(default=[], repr=False)
    control_plane_audit_enabled: bool = False
    metrics_public: bool = False
    tls_cert_path: str | None = None
    tls_key_path: str | None = None
    ca_cert_paths: list[str] = []
    client_cert_path: str | None = None
    client_key_path: str | None = None
    cors_allowed_origins: list[str] = []

    prometheus_host: str = "0.0.0.0"
    prometheus_port: int | None = Field(default=None, ge=0, le=65535)
    prometheus_duration_buckets: list[float] = []

    enable_igw: bool = False
    local_backends: int = Field(default=2, ge=1)
    worker_startup_timeout_secs: float = Field(default=1800.0, gt=0)
    model_path: str | None = None
    tokenizer_path: str | None = None
    chat_template: str | None = None
    revision: str | None = None
    download_dir: str | None = None

    shutdown_grace_period_secs: float = Field(default=180.0, ge=0)
    drain_settle_secs: float = Field(default=0.0, ge=0)
    log_level: str = "info"
    log_dir: str | None = None

    @field_validator("router_hosts")
    @classmethod
    def _normal_addresses(cls, hosts: list[str]) -> list[str]:
        urls = [worker_url(host) for host in hosts]
        for url in urls:
            if urls.count(url) > 1:
                raise ValueError(f"{url} is named twice")
        return urls

    @field_validator("request_id_headers")
    @classmethod
    def _header_names(cls, names: list[str]) -> list[str]:
        if not names:
            raise ValueError("must be followed by one name or more")
        for name in names:
            if not _HEADER_NAME.fullmatch(name) or name.lower().encode() in NOT_ON:
                raise ValueError(f"{name!r} is no name of a header that may carry an id")
        return names

    @field_validator("cors_allowed_origins")
    @classmethod
    def _origins(cls, origins: list[str]) -> list[str]:
        """As browsers send them: one that is written otherwise would never match."""
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} must be SCHEME://HOST or SCHEME://HOST:PORT, or *")
        return origins

    @field_validator("health_check_endpoint")
    @classmethod
    def _a_path(cls, endpoint: str) -> str:
        if not endpoint.startswith("/"):
            raise ValueError(f"must be a path that starts with /, got {endpoint!r}")
        return endpoint

    @model_validator(mode="after")
    def _selected(self) -> Self:
        """Without labels every Service of the cluster would be taken for a backend, and be sent prompts."""
        if self.service_discovery and not self.selector:
            raise ValueError("--service-discovery needs --selector LABEL=VALUE")
        return self

    @model_validator(mode="after")
    def _processes(self) -> Self:
        """What several processes cannot do, or cannot divide among them."""
        if self.workers == 1:
            return self
        for name in ("record_trace", "shadow_policy"):
            if getattr(self, name) is not None:
                raise ValueError(f"{_flag(name)} needs --workers 1: each process would see a part of the traffic")
        for name in (
            "max_concurrent_requests", "max_concurrent_requests_per_key", "max_concurrent_requests_per_worker",
        ):  # fmt: skip
            if 0 < getattr(self, name) < self.workers:
                raise ValueError(
                    f"{_flag(name)} {getattr(self, name)} cannot be divided among --workers {self.workers} processes"
                )
        return self

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> RouterConfig:
        """From flag values by name. Raises :class:`ConfigError` with the first thing that is wrong."""
        try:
            return cls.model_validate({name: value for name, value in values.items() if name in cls.model_fields})
        except ValidationError as error:
            first = error.errors()[0]
            message = first["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{_flag(str(first['loc'][0]))}: {message}" if first["loc"] else message) from None

    @property
    def own_backends(self) -> bool:
        """Nobody named workers, or said that they come later: the router starts its own."""
        return not (self.router_hosts or self.workers_file or self.service_discovery or self.enable_igw)

    @property
    def policy_options(self) -> PolicyOptions:
        return PolicyOptions(
            cache_threshold=self.cache_threshold,
            balance_abs_threshold=self.balance_abs_threshold,
            balance_rel_threshold=self.balance_rel_threshold,
            prefix_token_count=self.prefix_token_count,
            prefix_hash_load_factor=self.prefix_hash_load_factor,
            max_idle_secs=self.max_idle_secs,
            assignment_mode=self.assignment_mode,
            bucket_adjust_interval_secs=self.bucket_adjust_interval_secs,
        )

    @property
    def prefix_bytes(self) -> int:
        """The tree's budget: SGLang's flag counts per worker."""
        if self.max_tree_size is None:
            return self.prefix_index_bytes
        return self.max_tree_size * (len(self.router_hosts) or self.local_backends)

    @property
    def retries(self) -> RetrySettings:
        return RetrySettings(
            attempts=1 if self.disable_retries else self.retry_max_retries,
            initial_backoff=self.retry_initial_backoff_ms / 1000,
            max_backoff=self.retry_max_backoff_ms / 1000,
            multiplier=self.retry_backoff_multiplier,
            jitter=self.retry_jitter_factor,
        )

    @property
    def health(self) -> HealthSettings:
        return HealthSettings(
            disabled=self.disable_health_check,
            endpoint=self.health_check_endpoint,
            interval=self.health_check_interval_secs,
            timeout=self.health_check_timeout_secs,
            failures=self.health_failure_threshold,
            successes=self.health_success_threshold,
        )

    @property
    def breaker(self) -> BreakerSettings:
        longest = self.cb_timeout_duration_secs
        return BreakerSettings(
            disabled=self.disable_circuit_breaker,
            failures=self.cb_failure_threshold,
            successes=self.cb_success_threshold,
            cool_down=min(BreakerSettings().cool_down, longest),
            max_cool_down=longest,
        )

    @property
    def admission(self) -> AdmissionSettings:
        return AdmissionSettings(
            requests=max(0, self.max_concurrent_requests),
            requests_per_key=self.max_concurrent_requests_per_key,
            requests_per_worker=self.max_concurrent_requests_per_worker,
            queue_size=self.queue_size,
            queue_timeout=self.queue_timeout_secs,
            request_rate=self.rate_limit_tokens_per_second,
            token_rate=self.rate_limit_prompt_tokens_per_second,
            request_rate_per_key=self.key_rate_limit_requests_per_second,
            token_rate_per_key=self.key_rate_limit_prompt_tokens_per_second,
        )

    @property
    def timeouts(self) -> Timeouts:
        return Timeouts(
            connect=self.connect_timeout_secs,
            first_byte=self.first_byte_timeout_secs or None,
            idle=self.stream_idle_timeout_secs or None,
            total=self.request_timeout_secs or None,
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
