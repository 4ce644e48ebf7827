"""vLLM's own flags; those that only spell a setting differently are names of its row."""

from __future__ import annotations

from backend.flags.flag import Flag
from backend.flags.rows import accepted, integer, not_yet, number, switch, text, words

ALWAYS = accepted(
    "vLLM",
    "it is always so",
    switch("--enable-chunked-prefill"),
    switch("--enable-prompt-tokens-details"),
    sources=("vllm",),
)

TUNING = accepted(
    "vLLM",
    "it changes no answer",
    number("--swap-space"),
    switch("--async-scheduling", off_names=("--no-async-scheduling",)),
    text("--compilation-config", "-O"),
    integer("--max-seq-len-to-capture"),
    integer("--num-scheduler-steps", default=1),
    integer("--max-num-partial-prefills", default=1),
    integer("--max-long-partial-prefills", default=1),
    integer("--long-prefill-token-threshold", default=0),
    integer("--max-parallel-loading-workers"),
    words("--ignore-patterns"),
    text("--prefix-caching-hash-algo"),
    text("--distributed-executor-backend"),
    integer("--api-server-count", "-asc", default=1),
    text("--performance-mode"),
    integer("--optimization-level"),
    switch("--use-tqdm-on-load", off_names=("--no-use-tqdm-on-load",)),
    integer("--kv-cache-memory-bytes"),
    sources=("vllm",),
)

LOGS = accepted(
    "vLLM",
    "requests are not logged",
    switch("--enable-log-requests", "--disable-log-requests", off_names=("--no-enable-log-requests",)),
    switch("--disable-log-stats"),
    integer("--max-log-len"),
    switch("--disable-uvicorn-access-log"),
    switch("--enable-server-load-tracking"),
    switch("--disable-fastapi-docs"),
    sources=("vllm",),
)

MODEL = not_yet(
    "vLLM",
    "the model folder says how the model is built",
    text("--hf-config-path"),
    text("--config-format", default="auto"),
    text("--code-revision"),
    text("--tokenizer-revision"),
    text("--rope-scaling"),
    number("--rope-theta"),
    text("--hf-token"),
    text("--task", default="auto"),
    text("--runner", default="auto"),
    text("--convert", default="auto"),
    integer("--max-logprobs"),
    text("--generation-config", default="vllm", reason="a request says how it is sampled"),
    text("--override-generation-config", reason="a request says how it is sampled"),
    words("--logits-processors"),
    integer("--num-gpu-blocks-override"),
    sources=("vllm",),
)

FEATURES = not_yet(
    "vLLM",
    "the feature is missing",
    switch("--no-enable-chunked-prefill", reason="use --chunked-prefill-size -1"),
    switch("--enable-auto-tool-choice"),
    text("--chat-template-content-format", default="auto"),
    text("--response-role", default="assistant"),
    switch("--return-tokens-as-token-ids"),
    switch("--enable-force-include-usage"),
    words("--allowed-origins"),
    text("--root-path"),
    words("--middleware"),
    switch("--enable-expert-parallel"),
    switch("--enable-sleep-mode"),
    switch("--calculate-kv-scales"),
    switch("--headless"),
    text("--limit-mm-per-prompt"),
    text("--structured-outputs-config"),
    text("--guided-decoding-backend", default="auto"),
    text("--speculative-config"),
    text("--kv-transfer-config"),
    integer("--max-loras", default=1),
    integer("--max-cpu-loras"),
    text("--worker-cls", default="auto"),
    words("--collect-detailed-traces"),
    number("--kv-offloading-size"),
    text("--additional-config"),
    sources=("vllm",),
)

VLLM: tuple[Flag, ...] = ALWAYS + TUNING + LOGS + MODEL + FEATURES
