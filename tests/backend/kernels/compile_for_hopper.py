"""Compiles the kernels for compute capability 9.0, which needs no GPU.

Prints one JSON object: for each kernel, how many variants there were, which instructions they use, and the most bytes
of shared memory. Run with TRITON_INTERPRET=0.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import replace

import torch
import triton
from triton.backends.compiler import GPUTarget

import backend.attention.triton as attention
import backend.layers.kernels.expert_lists as expert_lists
import backend.layers.kernels.experts as experts
import backend.layers.kernels.few_experts as few_experts
import backend.layers.kernels.few_rows as few_rows
import backend.layers.kernels.gate as gate
import backend.layers.kernels.latent as latent
import backend.layers.kernels.norm as norm
import backend.layers.kernels.rotary as rotary
import backend.layers.kernels.routing as routing
import backend.runner.kernels.draw as draw
import backend.runner.kernels.draw_logits as draw_logits
import backend.runner.kernels.likeliest as likeliest
from backend.attention.base import AttentionShape, KVTarget
from backend.layers.experts import ExpertWeights
from backend.layers.norm import RMSNorm
from backend.layers.rotary import RotaryTables
from backend.layers.routing import SIGMOID, SOFTMAX, Routing
from tests.backend.kernels.paged_rows import PagedRows

CPU = torch.device("cpu")
INSTRUCTIONS = ("wgmma.mma_async", "mma.sync", "cp.async.cg", "ld.global.v4", "griddepcontrol.wait")
SHAPES = {
    "plain": AttentionShape(32, 8, 128, 0.088),
    "everything": AttentionShape(8, 2, 64, 0.125, window=9, soft_cap=5.0, has_sinks=True),
    "latent": AttentionShape(16, 1, 576, 0.1, value_dim=512),
}


class Hopper:
    """What Triton asks the driver of the GPU that is not there."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


class Compiler:
    """Stands in for a kernel, and compiles it where it would be launched."""

    def __init__(self, kernel, found: dict[str, dict]) -> None:
        self.kernel = kernel
        self.report = found.setdefault(kernel.__name__, {"variants": 0, "instructions": [], "shared": 0})

    def __getitem__(self, grid):
        def compile_only(*args, **kwargs):
            if "CHAINED" in kwargs:  # as on a GPU
                kwargs |= {"CHAINED": True, "launch_pdl": True}
            compiled = self.kernel.warmup(*args, grid=grid, **kwargs)
            self.report["variants"] += 1
            self.report["shared"] = max(self.report["shared"], compiled.metadata.shared)
            seen = {name for name in INSTRUCTIONS if name in compiled.asm["ptx"]}
            self.report["instructions"] = sorted({*self.report["instructions"], *seen})

        return compile_only


KERNELS = {
    attention: ("decode_parts", "decode_merge", "prefill_blocks", "store_tokens"),
    norm: ("_rms_norm",),
    few_rows: ("_few_rows",),
    gate: ("_gate",),
    latent: ("latent_inputs",),
    experts: ("expert_gates", "expert_outputs", "combine"),
    expert_lists: ("arrange",),
    few_experts: ("pair_gates", "token_outputs"),
    routing: ("choose_experts",),
    rotary: ("_rotate_and_store",),
    draw: ("_draw_rows",),
    draw_logits: ("sum_blocks", "draw_in_block"),
    likeliest: ("_copy_blocks", "_best_of_blocks"),
}


def attend(shape: AttentionShape, pool_dtype: torch.dtype = torch.bfloat16) -> None:
    rows = PagedRows(shape, [1, 1, 90], [80, 7, 100], page=16, dtype=torch.bfloat16, pool_dtype=pool_dtype, device=CPU)
    backend = attention.TritonAttention(rows.pool, [shape])
    backend.plan(rows.layout)
    backend.attend(0, rows.query, rows.key, rows.value, rows.sinks)


def layers() -> None:
    x = torch.zeros(4, 4096, dtype=torch.bfloat16)
    for offset, delta in ((False, x), (True, None)):
        norm.rms_norm(x, x[0], 1e-6, offset=offset, delta=delta)
    for rows in (1, 3):
        few_rows.linear(x[:rows], torch.zeros(512, 4096, dtype=torch.bfloat16))
    for act in ("silu", "gelu", "gelu_pytorch_tanh", "relu"):
        gate.gate(act)(x)
    tables = RotaryTables(*(torch.zeros(3, 1, 64, dtype=torch.bfloat16) for _ in range(2)))
    weights = RMSNorm(128, 1e-6).to(torch.bfloat16), RMSNorm(128, 1e-6).to(torch.bfloat16)
    for dtype in (torch.bfloat16, torch.float8_e4m3fn):
        pools = [torch.zeros(4, 16, 8, 128, dtype=dtype) for _ in range(2)]
        for norms in (None, weights):
            target = KVTarget(*pools, torch.zeros(3, dtype=torch.int32))
            rotary.rotate_and_store(torch.zeros(3, 48, 128, dtype=torch.bfloat16), tables, target, norms)


def latents() -> None:
    tables = RotaryTables(*(torch.zeros(3, 1, 32, dtype=torch.bfloat16) for _ in range(2)))
    projected, query = torch.zeros(3, 576).bfloat16(), torch.zeros(3, 16, 576).bfloat16()
    norm = RMSNorm(512, 1e-6).to(torch.bfloat16)
    latent.latent_key(query[..., 512:], projected, norm, tables, query, interleaved=True)


def mixtures() -> None:
    of = ExpertWeights(torch.zeros(8, 512, 256).bfloat16(), torch.zeros(8, 256, 256).bfloat16(), "silu")
    biased = replace(of, act="clamped_swiglu", interleaved=True, gate_up_bias=of.gate_up[..., 0], down_bias=of.down[0])
    for tokens in (1, 100, 1000):
        x, ids = torch.zeros(tokens, 256).bfloat16(), torch.zeros(tokens, 2, dtype=torch.int64)
        experts.experts(x, ids.float(), ids, biased if tokens == 1 else of)
    for scores in (SOFTMAX, SIGMOID):
        routing.choose(torch.zeros(3, 128).bfloat16(), Routing(8, renormalise=True, scores=scores), None)


def sampling() -> None:
    shares = torch.zeros(3)
    draw.draw(torch.zeros(3, 151936), torch.zeros(3, dtype=torch.int64), shares, shares, shares)
    logits = torch.zeros(3, 151936, dtype=torch.bfloat16)
    likeliest.keep_and_find(logits, logits, torch.zeros(3, dtype=torch.int64))
    draw_logits.draw_from_logits(logits, shares, shares > 0, shares)


def cases() -> Iterator[None]:
    for shape in SHAPES.values():
        yield attend(shape)
    yield attend(SHAPES["plain"], torch.float8_e4m3fn)
    yield layers()
    yield latents()
    yield mixtures()
    yield sampling()


def main() -> None:
    random.seed(0)
    triton.runtime.driver.set_active(Hopper())
    triton.knobs.runtime.interpret = True  # of the check for a GPU alone: what was imported is compiled
    attention.precision = experts.precision = lambda device: "ieee"  # as on a GPU
    found: dict[str, dict] = {}
    for module, names in KERNELS.items():
        for name in names:
            setattr(module, name, Compiler(getattr(module, name), found))
    for _ in cases():
        pass
    print(json.dumps(found))


if __name__ == "__main__":
    main()
