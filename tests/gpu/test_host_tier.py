"""The host tier on a GPU: pages come back bit by bit, beside graphs and eager steps."""

import numpy as np
import pytest
import torch

from backend import Engine
from backend.cache.host_copies import HostCopies
from backend.cache.host_moves import Move, Transfers
from backend.cache.host_pool import HostPool
from backend.cache.kv_pool import KVPool
from tests.backend.engine.test_host_tier import TEXTS
from tests.backend.tiny_models import greedy, write_model


def pages(*numbers):
    return np.array(numbers, np.int32)


@pytest.mark.parametrize(
    ("dtype", "page_size", "head_dim", "latent"),
    [
        (torch.bfloat16, 16, 64, None),
        (torch.float32, 1, 128, None),
        (torch.bfloat16, 1, 3, None),
        (torch.bfloat16, 4, 576, 512),
    ],
)
def test_pages_survive_the_way_to_the_host_and_back(dtype, page_size, head_dim, latent):
    pool = KVPool(
        num_layers=3, num_pages=8, page_size=page_size, kv_heads=1 if latent else 3, head_dim=head_dim,
        dtype=dtype, device=torch.device("cuda"), latent=latent,
    )  # fmt: skip
    for layer in range(3):
        for tensor in pool.storage(layer):
            tensor.copy_(torch.randn(tensor.shape, device="cuda"))
    before = [[tensor.clone() for tensor in pool.storage(layer)] for layer in range(3)]
    copies = HostCopies(pool, HostPool(pool, 5))
    copies.start(Transfers((Move(True, pages(3, 8), pages(5, 1)), Move(False, pages(1, 2), pages(1, 5))), fence=True))
    for layer in range(3):
        copies.wait(layer)
        for tensor, was in zip(pool.storage(layer), before[layer], strict=True):
            assert torch.equal(tensor[[1, 2]], was[[8, 3]])
            assert torch.equal(tensor[3:], was[3:])


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize("policy", ["write_through", "write_back"])
def test_tokens_equal_the_reference(tmp_path, graphs, policy):
    """Torch's attention is never captured, so graphs are those of our kernels."""
    folder = write_model("llama", tmp_path)
    settings = {"enable_hierarchical_cache": True, "hicache_ratio": 8.0, "hicache_write_policy": policy}
    with Engine(
        folder, dtype="float32", attention_backend="triton" if graphs else "torch_native", skip_tokenizer_init=True,
        max_total_tokens=128, page_size=4, disable_cuda_graph=not graphs, check_invariants=True, **settings,
    ) as engine:  # fmt: skip
        fetched = 0
        for length in (40, 50, 60, 70):
            for text in TEXTS:
                prompt = [*text[:length], 5]
                answer = engine.generate(input_ids=prompt, sampling_params={"temperature": 0, "max_new_tokens": 6})
                expected = greedy(folder, prompt, 6)  # shorter where it met its EOS
                assert answer["output_ids"][: len(expected)] == expected
                fetched += answer["meta_info"].get("cached_tokens_details", {}).get("host", 0)
    assert fetched > 0
