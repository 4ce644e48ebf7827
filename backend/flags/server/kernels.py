"""Flags that choose or tune kernels and CUDA graphs: none changes an answer."""

from __future__ import annotations

from backend.flags.flag import Flag
from backend.flags.rows import accepted, integer, switch, text, words

FLASHINFER = accepted(
    "attention",
    "--attention-backend says whose attention kernels run; FlashInfer's others are not used",
    switch("--disable-flashinfer"),
    switch("--disable-flashinfer-sampling"),
    switch("--disable-flashinfer-autotune"),
    words("--flashinfer-autotune-skip-ops"),
    switch("--flashinfer-mla-disable-ragged"),
)

TRITON = accepted(
    "attention",
    "the attention kernels choose their own splits",
    integer("--triton-attention-num-kv-splits", default=8),
    switch("--triton-attention-reduce-in-fp32"),
    integer("--triton-attention-split-tile-size"),
    switch("--enable-lean-attention"),
)

FUSED = accepted(
    "kernels",
    "one set of kernels",
    text("--sampling-backend"),
    text("--fp8-gemm-backend", default="auto"),
    text("--fp4-gemm-backend", default="auto"),
    text("--bf16-gemm-backend", default="auto"),
    switch("--enable-tf32-matmul", off_names=("--no-enable-tf32-matmul",)),
    switch("--enable-fused-qk-norm-rope", off_names=("--no-enable-fused-qk-norm-rope",)),
    switch("--enable-nvidia-megakernel"),
    switch("--enable-amd-monokernel"),
    text("--monokernel-backend"),
    switch("--enable-precise-embedding-interpolation"),
    switch("--enable-scattered-sconv"),
    text("--prefill-kv-cache-dequant-dtype", default="auto"),
    switch("--mlx-enable-sampling"),
)

SPARSE = accepted(
    "kernels",
    "no model with sparse, linear or latent attention",
    text("--dsa-prefill-backend"),
    text("--dsv4-prefill-backend", default="auto"),
    integer("--dsa-triton-union", default=0),
    text("--dsa-decode-backend"),
    text("--dsv4-attn-backend", default="auto"),
    text("--dsa-paged-mqa-logits-backend", default="auto"),
    text("--dsa-topk-backend", default="sgl-kernel"),
    switch("--enable-deepseek-v4-fp4-indexer"),
    switch("--enable-dsa-fused-indexer", off_names=("--no-enable-dsa-fused-indexer",)),
    switch("--enable-encoder-swa-bounded-replay"),
    switch("--enable-decoder-swa-bounded-replay", off_names=("--no-enable-decoder-swa-bounded-replay",)),
    text("--mamba-backend", default="triton"),
    text("--mamba-ssm-dtype"),
    integer("--mamba-max-states-per-path", default=-1),
    switch("--enable-mamba-cache-stochastic-rounding"),
    integer("--mamba-cache-philox-rounds", default=0),
    text("--mamba-radix-cache-strategy", default="auto"),
    integer("--mamba-track-interval", default=256),
    switch("--enable-int8-mamba-checkpoint"),
    integer("--int8-mamba-ckpt-size"),
    text("--linear-attn-backend", default="triton"),
    text("--linear-attn-decode-backend"),
    text("--linear-attn-prefill-backend"),
    text("--linear-attn-verify-backend"),
    switch("--enable-linear-replayssm"),
    integer("--linear-replayssm-cache-len", default=16),
    switch("--enable-linear-replayssm-spec"),
)

GRAPHS = accepted(
    "CUDA graphs",
    "decode steps and short steps with prompts are captured as a whole",
    switch("--disable-decode-cuda-graph"),
    text("--cuda-graph-config"),
    text("--cuda-graph-backend-decode"),
    text("--cuda-graph-backend-prefill"),
    integer("--cuda-graph-max-bs-prefill"),
    integer("--cuda-graph-max-seq-len-prefill"),
    words("--cuda-graph-bs-prefill"),
    integer("--cuda-graph-prefill-max-context", "--context-bucket"),
    switch("--enable-profile-cuda-graph"),
    switch("--enable-cudagraph-gc"),
    switch("--debug-cuda-graph"),
    switch("--enable-piecewise-cuda-graph"),
    words("--piecewise-cuda-graph-tokens"),
)

COMPILE = accepted(
    "compilation",
    "TORCH_LOGS of torch itself tells what --enable-torch-compile does",
    switch("--enable-torch-compile-debug-mode"),
)

KERNELS: tuple[Flag, ...] = FLASHINFER + TRITON + FUSED + SPARSE + GRAPHS + COMPILE
