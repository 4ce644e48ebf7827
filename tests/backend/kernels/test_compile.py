"""Every kernel compiles for a Hopper GPU, also where there is none, and uses the instructions that make it fast."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(400)  # the compiler takes 12 s of a quiet core
MOST_SHARED = 227 << 10  # bytes that one program may have on such a GPU


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the compiler made; in a process of its own, since this one interprets."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.backend.kernels.compile_for_hopper"],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_kernel_compiles(found):
    assert all(kernel["variants"] > 0 for kernel in found.values())
    assert max(kernel["shared"] for kernel in found.values()) <= MOST_SHARED


def test_attention_uses_tensor_cores_and_asynchronous_copies(found):
    assert {"mma.sync", "cp.async.cg"} <= set(found["decode_parts"]["instructions"])
    for name in ("prefill_blocks", "expert_gates", "expert_outputs"):
        assert {"wgmma.mma_async", "cp.async.cg"} <= set(found[name]["instructions"])


def test_elementwise_kernels_read_sixteen_bytes_at_once(found):
    names = ("_rms_norm", "_gate", "store_tokens", "_draw_rows", "sum_blocks", "pair_gates", "token_outputs")
    assert all("ld.global.v4" in found[name]["instructions"] for name in names)


def test_chained_kernels_wait_for_the_one_before(found):
    names = ("decode_parts", "decode_merge", "_rms_norm", "_gate", "_rotate_and_store", "_few_rows", "choose_experts")
    names += ("latent_inputs", "arrange", "expert_gates", "expert_outputs", "combine", "pair_gates", "token_outputs")
    names += ("sum_blocks", "draw_in_block")
    assert all("griddepcontrol.wait" in found[name]["instructions"] for name in names)
