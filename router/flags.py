"""The flags of ``launch_router`` that work, one for each field of :class:`RouterConfig`, and the table of all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from backend.flags import Flag
from backend.flags.checks import AT_LEAST_ONE, MODEL_NAME, NOT_NEGATIVE, PORT, POSITIVE, Check
from backend.flags.rows import integer, number, switch, text, words, works
from policies import ASSIGNMENT_MODES, POLICY_NAMES
from router.config import RouterConfig
from router.known_flags import KNOWN

OURS = ("warmlane",)
BOTH = ("sglang-router", "warmlane")
SHARE = Check(lambda value: 0 <= value <= 1, "between 0 and 1")
GATE = "cache_aware: given, requests in flight that differ by more go to the least loaded"
HOSTS = Check(bool, "followed by one HOST:PORT or more")
FACTOR = Check(lambda value: value >= 1, "at least 1")
LIMIT = Check(lambda value: value >= -1, "at least -1")
JITTER = Check(lambda value: 0 <= value <= 1, "between 0 and 1")
LEVELS = ("debug", "info", "warning", "error")


def _settings(group: str, *rows: Flag) -> tuple[Flag, ...]:
    """Rows with the defaults of the configuration's fields; known from SGLang's router unless they say otherwise."""
    sources = ("sglang-router",)
    return works(group, *(replace(row, default=_default(row), sources=_sources(row, sources)) for row in rows))


def _default(row: Flag) -> Any:
    return RouterConfig.model_fields[row.dest].get_default(call_default_factory=True)


def _sources(row: Flag, usual: tuple[str, ...]) -> tuple[str, ...]:
    return row.sources if row.sources != ("sglang",) else usual


LISTENING = _settings(
    "listening",
    text("--host", help="address to listen on", metavar="ADDRESS"),
    integer("--router-port", "--port", dest="port", check=PORT, help="port to listen on", sources=BOTH),
    integer(
        "--workers",
        check=AT_LEAST_ONE,
        help="processes that share the port; limits are divided among them, and each keeps a prefix tree of all",
        sources=OURS,
    ),
    integer("--max-payload-size", check=AT_LEAST_ONE, help="largest request body in bytes; a larger one gets 413"),
    words("--request-id-headers", help="headers that may carry a request id; it is made when none does"),
)

WORKERS = _settings(
    "workers",
    words(
        "--router-hosts",
        "--worker-urls",
        metavar="HOST:PORT",
        check=HOSTS,
        help="the backends, as HOST:PORT or http(s)://HOST:PORT; without any, local ones are started",
        sources=BOTH,
    ),
    switch(
        "--enable-igw",
        help="begin with no backends if none are named: they come by POST /workers. Several models always work",
    ),
    integer("--local-backends", check=AT_LEAST_ONE, help="how many local ones, with no --router-hosts", sources=OURS),
    number("--worker-startup-timeout-secs", check=POSITIVE, help="time for local backends to become ready"),
    text(
        "--model-path",
        "--model",
        metavar="PATH",
        check=MODEL_NAME,
        help="model of the local backends; with --router-hosts only its tokenizer and chat template are used",
    ),
    text(
        "--tokenizer-path", metavar="PATH", check=MODEL_NAME, help="tokenizer of the local backends, if not the model's"
    ),
    text("--chat-template", metavar="PATH", help="Jinja file or template in place of the model's own"),
    text("--revision", help="branch, tag or commit of a hub model", sources=OURS),
    text("--download-dir", metavar="DIR", help="where models from the hub are kept", sources=OURS),
)

DISCOVERY = _settings(
    "discovery",
    text(
        "--workers-file",
        metavar="FILE",
        help="backends from a YAML or JSON list, read again when it changes: addresses or bodies of POST /workers",
        sources=OURS,
    ),
    switch(
        "--service-discovery", help="backends from Kubernetes: ready endpoints of the Services that --selector names"
    ),
    words("--selector", metavar="LABEL=VALUE", help="labels of the Services, which their EndpointSlices share"),
    integer("--service-discovery-port", check=PORT, help="port of the backends, if not that of the slices"),
    text("--service-discovery-namespace", metavar="NAME", help="namespace, if not all of them"),
)

PLACEMENT = _settings(
    "placement",
    text("--policy", choices=POLICY_NAMES, help="how a backend is chosen"),
    integer("--prefix-index-bytes", check=AT_LEAST_ONE, help="budget of the prefix tree in bytes", sources=OURS),
    integer("--seed", help="seed of random draws, for tests and replay", sources=OURS),
    integer("--max-tree-size", check=AT_LEAST_ONE, help="the same budget, as bytes for each backend at the start"),
    number("--cache-threshold", check=SHARE, help="cache_aware: smaller matched shares earn no credit"),
    integer("--balance-abs-threshold", check=NOT_NEGATIVE, help=GATE),
    number("--balance-rel-threshold", check=FACTOR, help=GATE),
    integer("--prefix-token-count", check=AT_LEAST_ONE, help="prefix_hash: tokens at the start that are hashed"),
    number("--prefix-hash-load-factor", check=FACTOR, help="prefix_hash, consistent_hashing: load over the average"),
    number("--max-idle-secs", check=POSITIVE, help="manual: a session that is idle for longer is forgotten"),
    text("--assignment-mode", choices=ASSIGNMENT_MODES, help="manual: where a new session goes"),
    number("--bucket-adjust-interval-secs", check=POSITIVE, help="bucket: time between two fits of its boundaries"),
    switch(
        "--request-usage",
        help="ask streams for their usage, which tells their cached tokens; clients do not see it",
        sources=OURS,
    ),
    text("--record-trace", metavar="FILE", help="append the traffic without its text, for replay", sources=OURS),
    text("--shadow-policy", choices=POLICY_NAMES, help="simulate another policy beside the live one", sources=OURS),
)

ADMISSION = _settings(
    "admission",
    integer("--max-concurrent-requests", check=LIMIT, help="requests served at a time, a true limit; -1 or 0: none"),
    integer("--max-concurrent-requests-per-worker", check=NOT_NEGATIVE, help="the same at each backend", sources=OURS),
    integer("--max-concurrent-requests-per-key", check=NOT_NEGATIVE, help="the same of each API key", sources=OURS),
    integer("--queue-size", check=NOT_NEGATIVE, help="requests that may wait, keys by turns; more get 429"),
    number("--queue-timeout-secs", check=NOT_NEGATIVE, help="longest wait; then 503"),
    number(
        "--rate-limit-tokens-per-second",
        "--rate-limit-requests-per-second",
        check=NOT_NEGATIVE,
        help="requests let in a second (a token of this bucket is a request); more get 429 with Retry-After",
        sources=BOTH,
    ),
    number("--rate-limit-prompt-tokens-per-second", check=NOT_NEGATIVE, help="in prompt tokens", sources=OURS),
    number("--key-rate-limit-requests-per-second", check=NOT_NEGATIVE, help="of each API key", sources=OURS),
    number(
        "--key-rate-limit-prompt-tokens-per-second",
        check=NOT_NEGATIVE,
        help="of each API key, in prompt tokens",
        sources=OURS,
    ),
)

TIMEOUTS = _settings(
    "timeouts",
    number("--request-timeout-secs", check=NOT_NEGATIVE, help="for a whole request; 0: none"),
    number("--connect-timeout-secs", check=POSITIVE, help="to connect to a backend", sources=OURS),
    number("--first-byte-timeout-secs", check=NOT_NEGATIVE, help="to an answer's first byte; 0: none", sources=OURS),
    number(
        "--stream-idle-timeout-secs", check=NOT_NEGATIVE, help="between two chunks of an answer; 0: none", sources=OURS
    ),
)

RETRIES = _settings(
    "retries",
    integer("--retry-max-retries", check=AT_LEAST_ONE, help="attempts in all before the first byte"),
    number("--retry-initial-backoff-ms", check=NOT_NEGATIVE, help="pause before a backend is tried again"),
    number("--retry-max-backoff-ms", check=NOT_NEGATIVE, help="longest pause"),
    number("--retry-backoff-multiplier", check=FACTOR, help="growth of the pause"),
    number("--retry-jitter-factor", check=JITTER, help="random part of the pause"),
    switch("--disable-retries", help="one attempt only"),
    switch(
        "--resume-streams",
        help="a stream whose backend dies after the first token goes on at another one, from the text sent so far; "
        "not with n > 1, tools, logprobs, structured output or a seed",
        sources=OURS,
    ),
)

BREAKER = _settings(
    "circuit breaker",
    integer("--cb-failure-threshold", check=AT_LEAST_ONE, help="failures in a row after which a backend rests"),
    integer("--cb-success-threshold", check=AT_LEAST_ONE, help="answered probes, one at a time, that end the rest"),
    number(
        "--cb-timeout-duration-secs",
        check=POSITIVE,
        help="longest rest; it begins with half a second and doubles. A probe that fails is repeated elsewhere",
    ),
    switch("--disable-circuit-breaker", help="let health checks alone decide who gets requests"),
    number(
        "--first-byte-probe-secs",
        check=NOT_NEGATIVE,
        help="when a first byte is outstanding for so long the backend is asked how it is; one that leaves two such "
        "questions unanswered for as long each is silent, and its requests go elsewhere; 0: never",
        sources=OURS,
    ),
)

HEALTH = _settings(
    "health checks",
    text("--health-check-endpoint", metavar="PATH", help="path that answers 2xx when a backend is well"),
    number("--health-check-interval-secs", check=POSITIVE, help="between checks of a well backend"),
    number("--health-check-timeout-secs", check=POSITIVE, help="for one check"),
    integer("--health-failure-threshold", check=AT_LEAST_ONE, help="failures in a row that make it unhealthy"),
    integer("--health-success-threshold", check=AT_LEAST_ONE, help="successes in a row that make it healthy again"),
    switch("--disable-health-check", help="take every backend as healthy"),
)

SECURITY = _settings(
    "security",
    text("--api-key", metavar="KEY", help="key that clients must send as a bearer token, on all routes but the probes"),
    text(
        "--api-key-file",
        metavar="FILE",
        help="more keys of clients: lines of KEY or NAME KEY; limits of each key go by the name",
        sources=OURS,
    ),
    text(
        "--admin-api-key",
        metavar="KEY",
        help="key of the admin routes; without it they answer direct callers on this machine only",
        sources=OURS,
    ),
    words(
        "--control-plane-api-keys",
        metavar="ID:NAME:ROLE:KEY",
        help="more keys of the admin routes: those whose ROLE is admin; a user's opens none of them",
    ),
    switch("--control-plane-audit-enabled", help="log every call of an admin route, with the name of its key"),
    switch("--metrics-public", help="/metrics without a key, also when keys are set", sources=OURS),
    words(
        "--cors-allowed-origins",
        metavar="ORIGIN",
        help="web pages that may call the router, as https://HOST; * for all; without it none may",
    ),
    text("--tls-cert-path", metavar="PATH", help="certificate chain to listen with HTTPS, PEM"),
    text("--tls-key-path", metavar="PATH", help="its private key, PEM"),
    words("--ca-cert-paths", metavar="PATH", help="authorities to trust for https backends, beside the system's, PEM"),
    text("--client-cert-path", metavar="PATH", help="certificate to show to https backends that ask for one, PEM"),
    text("--client-key-path", metavar="PATH", help="its private key, PEM"),
)

OPERATION = _settings(
    "operation",
    text("--prometheus-host", metavar="ADDRESS", help="address of the separate metrics port"),
    integer("--prometheus-port", check=PORT, help="serve /metrics on this port too"),
    words("--prometheus-duration-buckets", metavar="SECONDS", help="histogram buckets in place of the usual ones"),
    number("--shutdown-grace-period-secs", check=NOT_NEGATIVE, help="time for requests under way after SIGTERM"),
    number(
        "--drain-settle-secs",
        check=NOT_NEGATIVE,
        help="after SIGTERM, time to serve on while readiness says no",
        sources=OURS,
    ),
    text("--log-level", choices=LEVELS, rename={"warn": "warning"}, help="least level that is logged"),
    text("--log-dir", metavar="DIR", help="folder of the local backends' logs, in place of a temporary one"),
)

SETTINGS = (
    LISTENING
    + WORKERS
    + DISCOVERY
    + PLACEMENT
    + ADMISSION
    + TIMEOUTS
    + RETRIES
    + BREAKER
    + HEALTH
    + SECURITY
    + OPERATION
)
ROUTER_FLAGS: tuple[Flag, ...] = SETTINGS + KNOWN
