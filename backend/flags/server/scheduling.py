"""Flags about batching, memory and the prefix cache, beyond those that work."""

from __future__ import annotations

from backend.flags.flag import Flag
from backend.flags.rows import accepted, integer, not_yet, number, switch, text, words

MIXED = accepted(
    "scheduling",
    "a step always mixes prompts and decodes",
    switch("--enable-mixed-chunk"),
    switch("--enable-dynamic-chunking"),
    integer("--prefill-decode-interval"),
    integer("--prefill-decode-interval-min-bs", default=0),
    switch("--enable-prefill-delayer"),
    integer("--prefill-delayer-max-delay-passes", default=30),
    number("--prefill-delayer-token-usage-low-watermark"),
    words("--prefill-delayer-forward-passes-buckets"),
    words("--prefill-delayer-wait-seconds-buckets"),
    number("--prefill-delayer-queue-min-ratio"),
    number("--prefill-delayer-max-delay-ms"),
    integer("--min-free-slots-delay"),
    integer("--prefill-max-requests"),
)

STEPS = accepted(
    "scheduling",
    "each step is scheduled when the one before it has ended",
    integer("--scheduler-recv-interval", default=1),
    switch("--sleep-on-idle"),
)

ORDER = not_yet(
    "scheduling",
    "requests are served in the order of their arrival",
    integer("--default-priority-value"),
    switch("--abort-on-priority-when-disabled"),
    switch("--schedule-low-priority-values-first"),
    text("--retraction-policy", default="length"),
)

EVICTION = not_yet(
    "prefix cache",
    "the least recently used pages are evicted",
    text("--radix-eviction-policy-config"),
    text("--radix-cache-backend"),
)

LAYOUT = accepted(
    "memory",
    "the KV cache has one layout, and pages of one size",
    switch("--enable-page-major-kv-layout"),
    switch("--enable-unified-memory"),
    integer("--c128-page-size", default=16),
    integer("--swa-prefix-tails"),
    switch("--disable-chunked-prefix-cache"),
    integer("--max-mamba-cache-size"),
    number("--mamba-full-memory-ratio"),
)

NO_KV = not_yet(
    "memory",
    "every request needs its KV cache",
    switch("--prefill-only-disable-kv-cache"),
)

HOST_COPIES = accepted(
    "hierarchical cache",
    "pages are copied layer by layer, by a kernel on the GPU",
    text("--hicache-io-backend", default="kernel"),
    text("--hicache-mem-layout", default="page_first"),
)

HIERARCHY = not_yet(
    "hierarchical cache",
    "below the device there is one tier: the host's memory, sized by --hicache-ratio or --hicache-size",
    text("--hicache-host-memory-mode", default="cache"),
    number("--hicache-host-memory-fraction", default=0.8),
    text("--hicache-storage-backend"),
    text("--hicache-storage-prefetch-policy", default="timeout"),
    text("--hicache-storage-backend-extra-config"),
    integer("--hicache-storage-prefetch-retry-poll-interval", default=8),
    integer("--hicache-storage-prefetch-retry-max-attempts", default=8),
    switch("--enable-unified-cache-external-linker"),
    text("--unified-cache-external-linker-backend", default="mooncake"),
    text("--unified-cache-external-linker-config"),
    switch("--enable-linker-mla-dedup"),
    switch("--enable-hisparse"),
    text("--hisparse-config", "--hierarchical-sparse-attention-extra-config"),
    switch("--enable-lmcache"),
    text("--lmcache-config-file"),
    switch("--enable-flexkv"),
    text("--flexkv-config-file"),
)

SCHEDULING: tuple[Flag, ...] = MIXED + STEPS + ORDER + EVICTION + LAYOUT + NO_KV + HOST_COPIES + HIERARCHY
