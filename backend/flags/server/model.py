"""Flags about the model, its files and its weights, beyond those that work."""

from __future__ import annotations

from backend.flags.flag import Flag, Kind
from backend.flags.rows import accepted, integer, not_yet, switch, text, words

ALWAYS = accepted(
    "model",
    "weights are read once at the start, straight from memory-mapped files",
    switch("--weight-loader-disable-mmap"),
    switch("--weight-loader-prefetch-checkpoints"),
    integer("--weight-loader-prefetch-num-threads", default=4),
    switch("--weight-loader-drop-cache-after-load"),
    text("--startup-weight-load-mode", default="serial"),
    text("--model-loader-extra-config", default="{}"),
)

KINDS = not_yet(
    "model",
    "models of text only; docs/models.md lists the architectures",
    text("--model-config-parser", default="auto"),
    switch("--enable-fp32-lm-head", reason="--dtype holds for the whole model"),
    switch("--enable-multimodal"),
    switch("--encoder-only"),
    switch("--language-only"),
    switch("--language-model-only"),
    text("--dllm-algorithm"),
    text("--dllm-algorithm-config"),
    switch("--dllm-fdfo", default=True, off_names=("--no-dllm-fdfo",)),
)

QUANTIZATION = not_yet(
    "quantization",
    "weights are used as they are stored; a GGUF file is unpacked when it is read",
    text("--quantization", "-q", harmless=("gguf",)),
    text("--quantization-param-path"),
    text("--qsa-indexer-dtype", default="auto"),
    text("--modelopt-quant"),
    text("--modelopt-checkpoint-restore-path"),
    text("--modelopt-checkpoint-save-path"),
    text("--modelopt-export-path"),
    switch("--quantize-and-serve"),
    text("--rl-quant-profile"),
)

WEIGHTS = not_yet(
    "weights",
    "weights come from local files or the hub, and stay as they are",
    words("--custom-weight-loader"),
    text("--remote-instance-weight-loader-seed-instance-ip"),
    integer("--remote-instance-weight-loader-seed-instance-service-port"),
    words("--remote-instance-weight-loader-send-weights-group-ports"),
    text("--remote-instance-weight-loader-backend", default="nccl"),
    switch("--remote-instance-weight-loader-start-seed-via-transfer-engine"),
    integer("--engine-info-bootstrap-port", default=6789),
    text("--modelexpress-config"),
    Flag(("--model-checksum",), Kind.OPTIONAL, bare=""),
    switch("--delete-ckpt-after-loading"),
    text("--decrypted-config-file"),
    text("--decrypted-draft-config-file"),
    switch("--checkpoint-engine-wait-weights-before-ready"),
    text("--weight-cache-mode", default="off"),
    text("--weight-cache-socket"),
    integer("--weight-cache-timeout", default=1800),
    text("--weight-version", default="default"),
    switch("--enable-memory-saver"),
    switch("--enable-weights-cpu-backup"),
    switch("--enable-draft-weights-cpu-backup"),
    text("--rl-on-policy-target"),
)

OFFLOAD = not_yet(
    "offloading",
    "weights and KV cache stay on the device",
    integer("--cpu-offload-gb", default=0),
    integer("--offload-group-size", default=-1),
    integer("--offload-num-in-group", default=1),
    integer("--offload-prefetch-step", default=1),
    text("--offload-mode", default="cpu"),
    switch("--ple-offload-embedding", off_names=("--no-ple-offload-embedding",)),
    text("--ple-offload-backend", default="pinned"),
    text("--ple-offload-dir"),
)

MODEL: tuple[Flag, ...] = ALWAYS + KINDS + QUANTIZATION + WEIGHTS + OFFLOAD
