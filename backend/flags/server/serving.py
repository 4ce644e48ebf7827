"""Flags about HTTP, tokenising and the shape of answers, beyond those that work."""

from __future__ import annotations

from backend.flags.flag import Flag
from backend.flags.rows import accepted, integer, not_yet, number, switch, text, words

TOKENS_TOLD = accepted(
    "answers",
    "cached tokens are always told",
    switch("--enable-cache-report"),
)

ONE_FRONTEND = accepted(
    "processes",
    "one process tokenises and answers HTTP; run several backends behind the router for more",
    integer("--tokenizer-worker-num", default=1),
    integer("--detokenizer-worker-num", default=1),
    text("--tokenizer-backend", default="huggingface"),
    switch("--enable-http-worker-reuseport"),
    switch("--enable-dynamic-batch-tokenizer"),
    integer("--dynamic-batch-tokenizer-batch-size", default=32),
    number("--dynamic-batch-tokenizer-batch-timeout", default=0.002),
    switch("--enable-tokenizer-batch-encode"),
    switch("--disable-tokenizer-batch-decode"),
    integer("--batch-notify-size", default=16),
    words("--numa-node"),
    words("--gc-threshold"),
)

STREAMS = accepted(
    "answers",
    "every token is sent as soon as it is known",
    integer("--stream-interval", default=1),
)

WARMUPS = accepted(
    "server",
    "one short request warms the server up",
    text("--warmups"),
)

TOKENIZERS = not_yet(
    "tokeniser",
    "fast tokenisers only",
    text("--tokenizer-mode", default="auto"),
)

PROTECTION = not_yet(
    "protection",
    "put nginx in front for TLS",
    text("--ssl-keyfile"),
    text("--ssl-certfile"),
    text("--ssl-ca-certs"),
    text("--ssl-keyfile-password"),
    switch("--enable-ssl-refresh"),
)

PROTOCOLS = not_yet(
    "protocols",
    "HTTP/1.1 at the root path only",
    switch("--enable-http2"),
    integer("--http2-max-concurrent-streams", default=200),
    integer("--http2-initial-connection-window-size", default=1_048_576),
    switch("--smg-grpc-mode"),
    switch("--grpc-mode"),
    integer("--grpc-port"),
    integer("--grpc-response-timeout-secs", default=300),
    text("--sidecar"),
    words("--sidecar-args"),
    text("--fastapi-root-path", default=""),
    integer("--smg-http-sidecar-port", "--grpc-http-sidecar-port"),
    switch("--use-ray"),
)

ANSWERS = not_yet(
    "answers",
    "answers have the plain form",
    switch("--return-input-ids"),
    switch("--return-output-ids"),
    switch("--incremental-streaming-output"),
    switch("--stream-response-default-include-usage"),
    switch("--enable-response-store"),
    text("--file-storage-path"),
    text("--tool-server"),
    switch("--strip-thinking-cache"),
    switch("--enable-strict-thinking"),
    switch("--enable-return-hidden-states"),
    text("--return-hidden-states-mode"),
    switch("--enable-return-aux-hidden-states"),
    words("--return-aux-hidden-state-layer-ids"),
    switch("--enable-return-routed-experts"),
    switch("--enable-return-indexer-topk"),
)

TEMPLATES = not_yet(
    "prompts",
    "the prompt is what the chat template renders from the request",
    text("--hf-chat-template-name"),
    text("--completion-template"),
    text("--default-chat-template-kwargs"),
    switch("--trust-request-chat-template"),
)

SAMPLING = not_yet(
    "sampling",
    "a request says how it is sampled",
    text("--preferred-sampling-params"),
    switch("--enable-custom-logit-processor"),
    switch("--enable-watermark"),
    text("--watermark-config"),
    switch("--enable-mis"),
)

GRAMMAR = not_yet(
    "structured output",
    "JSON is written as Python writes it",
    text("--constrained-json-whitespace-pattern"),
    switch("--constrained-json-disable-any-whitespace"),
    integer("--constrained-json-max-whitespace-cnt"),
)

GRAMMAR_TUNING = accepted(
    "structured output",
    "output is not constrained",
    switch("--disable-outlines-disk-cache"),
    integer("--sampling-mask-max-tokens", default=4096),
)

SESSIONS = not_yet(
    "sessions",
    "the prefix cache serves conversations",
    switch("--enable-streaming-session"),
    switch("--enable-session-radix-cache"),
)

SERVING: tuple[Flag, ...] = (
    TOKENS_TOLD
    + ONE_FRONTEND
    + STREAMS
    + WARMUPS
    + TOKENIZERS
    + PROTECTION
    + PROTOCOLS
    + ANSWERS
    + TEMPLATES
    + SAMPLING
    + GRAMMAR
    + GRAMMAR_TUNING
    + SESSIONS
)
