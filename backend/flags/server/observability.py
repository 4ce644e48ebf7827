"""Flags about logs, metrics and debugging, beyond those that work."""

from __future__ import annotations

from backend.flags.flag import Flag
from backend.flags.rows import accepted, integer, not_yet, number, switch, text, words

METRICS = accepted(
    "metrics",
    "/metrics is always on, with fixed labels and buckets",
    switch("--enable-metrics"),
    switch("--enable-metrics-for-all-schedulers"),
    switch("--enable-mfu-metrics"),
    words("--bucket-time-to-first-token"),
    words("--bucket-inter-token-latency"),
    words("--bucket-e2e-request-latency"),
    words("--prompt-tokens-buckets"),
    words("--generation-tokens-buckets"),
    integer("--load-snapshot-publish-interval", default=15),
)

LABELS = not_yet(
    "metrics",
    "/metrics has fixed labels",
    text("--tokenizer-metrics-custom-labels-header", default="x-custom-labels"),
    words("--tokenizer-metrics-allowed-custom-labels"),
    text("--extra-metric-labels"),
)

LOGS = accepted(
    "logs",
    "requests are not logged",
    text("--log-level-http"),
    switch("--log-requests"),
    integer("--log-requests-level", default=2),
    text("--log-requests-format", default="text"),
    words("--log-requests-target"),
    words("--uvicorn-access-log-exclude-prefixes"),
    switch("--show-time-cost"),
    integer("--decode-log-interval", default=40),
    switch("--enable-request-time-stats-logging"),
    number("--gc-warning-threshold-secs", default=0.0),
)

WATCHDOG = accepted(
    "debugging",
    "the one watchdog is --watchdog-timeout",
    number("--soft-watchdog-timeout"),
)

PUBLISHED = not_yet(
    "events and traces",
    "state is told over HTTP only",
    text("--load-publish-endpoint"),
    switch("--enable-forward-pass-metrics"),
    text("--forward-pass-metrics-worker-id", default=""),
    text("--forward-pass-metrics-ipc-name"),
    switch("--enable-trace"),
    text("--trace-modules", default="request"),
    text("--otlp-traces-endpoint", default="localhost:4317"),
    text("--otlp-service-name"),
    switch("--export-metrics-to-file"),
    text("--export-metrics-to-file-dir"),
)

DEBUGGING = not_yet(
    "debugging",
    "no dumps of requests or tensors",
    text("--crash-dump-folder"),
    switch("--enable-layerwise-nvtx-marker"),
    text("--kv-canary", default="none"),
    text("--kv-canary-real-data", default="none"),
    integer("--kv-canary-sweep-interval", default=0),
    text("--debug-tensor-dump-output-folder"),
    words("--debug-tensor-dump-layers"),
    text("--debug-tensor-dump-input-file"),
    words("--forward-hooks"),
    text("--msprobe-dump-config"),
)

OBSERVABILITY: tuple[Flag, ...] = METRICS + LABELS + LOGS + WATCHDOG + PUBLISHED + DEBUGGING
