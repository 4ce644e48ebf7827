"""Flags of SGLang's router (0.3.2) that have no effect here, or ask for something that is missing."""

from __future__ import annotations

from backend.flags import Flag
from backend.flags.rows import accepted, groups, integer, switch, text, words
from backend.flags.rows import not_yet as _not_yet

PEER = ("sglang-router",)


def _accepted(group: str, reason: str, *rows: Flag) -> tuple[Flag, ...]:
    return accepted(group, reason, *rows, sources=PEER)


def _missing(group: str, reason: str, *rows: Flag) -> tuple[Flag, ...]:
    return _not_yet(group, reason, *rows, sources=PEER)


WITHOUT_EFFECT = (
    *_accepted(
        "placement",
        "the prefix tree has a budget in bytes (--prefix-index-bytes) and evicts when it inserts",
        integer("--eviction-interval-secs", "--eviction-interval", default=60),
    ),
    *_accepted(
        "workers",
        "the router listens at once and takes each worker in when its own health check passes",
        integer("--worker-startup-check-interval", default=30),
    ),
    *_accepted(
        "tokenizer",
        "the router compares texts, and the backends tokenise",
        switch("--tokenizer-cache-enable-l0"),
        integer("--tokenizer-cache-l0-max-entries", default=10000),
        switch("--tokenizer-cache-enable-l1"),
        integer("--tokenizer-cache-l1-max-memory", default=50 * 1024 * 1024),
    ),
    *_accepted(
        "parsers",
        "answers pass through as the backend made them: set the parser there",
        text("--reasoning-parser"),
        text("--tool-call-parser"),
    ),
    *_accepted("circuit breaker", "SGLang's router never reads it", integer("--cb-window-duration-secs", default=120)),
)

NOT_BUILT = (
    *_missing(
        "disaggregation",
        "prefill and decode run on the same backend",
        switch("--pd-disaggregation"),
        switch("--mini-lb"),
        groups("--prefill"),
        words("--decode"),
        text("--prefill-policy"),
        text("--decode-policy"),
        words("--prefill-selector"),
        words("--decode-selector"),
    ),
    *_missing("workers", "a data-parallel server counts as one worker", switch("--dp-aware")),
    *_missing(
        "security",
        "admin routes know keys, --admin-api-key and --control-plane-api-keys",
        text("--jwt-issuer"),
        text("--jwt-audience"),
        text("--jwt-jwks-uri"),
        words("--jwt-role-mapping"),
    ),
    *_missing(
        "tracing",
        "no traces are exported",
        switch("--enable-trace"),
        text("--otlp-traces-endpoint", default="localhost:4317"),
    ),
    *_missing(
        "outside a router's job",
        "requests are routed, not rewritten: no tools are called on the way",
        text("--mcp-config-path"),
        switch("--enable-wasm"),
    ),
    *_missing(
        "outside a router's job",
        "backends speak HTTP as SGLang and vLLM do",
        text("--backend", default="sglang", harmless=("vllm",)),
    ),
    *_missing(
        "outside a router's job",
        "conversations are not stored",
        text("--history-backend", default="memory", harmless=("none",)),
        text("--oracle-wallet-path"),
        text("--oracle-tns-alias"),
        text("--oracle-connect-descriptor"),
        text("--oracle-username"),
        text("--oracle-password"),
        integer("--oracle-pool-min", default=1),
        integer("--oracle-pool-max", default=16),
        integer("--oracle-pool-timeout-secs", default=30),
        text("--postgres-db-url"),
        integer("--postgres-pool-max", default=16),
        text("--redis-url"),
        integer("--redis-pool-max", default=16),
        integer("--redis-retention-days", default=30),
    ),
)

KNOWN: tuple[Flag, ...] = WITHOUT_EFFECT + NOT_BUILT
