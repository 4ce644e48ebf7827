"""How much of a GPU's memory an engine takes; for a GPU that nobody else uses meanwhile."""

import os

import pytest
import torch

from tests.gpu.test_engine import make_engine, model, prompts

__all__ = ["model"]  # a fixture

pytestmark = pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="other tests take memory meanwhile")


def test_the_pool_leaves_room_for_steps_and_takes_most_of_the_rest(model):
    """Nobody says how large it is: whole prompts and many draws fit beside it, and it is most of what was free."""
    free, total = torch.cuda.mem_get_info()
    with make_engine(model, max_total_tokens=None, max_running_requests=None) as engine:
        info = engine.get_server_info()
        wanted = {"temperature": 0.9, "top_p": 0.9, "top_k": 40, "max_new_tokens": 3}
        engine.generate(input_ids=prompts(400, longest=400), sampling_params=wanted, progress=False)
        left = torch.cuda.mem_get_info()[0]
    most = info["max_running_requests"] * info["context_length"] * info["kv_cache_bytes"] // info["max_total_tokens"]
    assert info["kv_cache_bytes"] >= min(0.8 * free, 0.99 * most)
    assert left > 0.02 * total
