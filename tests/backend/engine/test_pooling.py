"""Embeddings of a tiny model against ``transformers``, whatever cache, chunks and other requests do."""

import numpy as np
import pytest
import torch

from tests.backend.pooled import pool
from tests.backend.tiny_models import VOCAB, load_reference, write_model

LENGTHS = [1, 5, 17, 40, 40, 33]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model("llama", tmp_path_factory.mktemp("tiny"))


def expected(folder, prompt, pooling):
    with torch.inference_mode():
        hidden = load_reference(folder).model(torch.tensor([prompt])).last_hidden_state[0]
    return (hidden.mean(dim=0) if pooling == "mean" else hidden[-1]).numpy()


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("chunk", [8, 64])
def test_vectors_equal_those_of_transformers(folder, pooling, overlap, chunk):
    random = np.random.default_rng(1)
    prompts = [random.integers(3, VOCAB, length).tolist() for length in LENGTHS]
    prompts[4][:20] = prompts[3][:20]  # what the cache can give
    prompts.append(prompts[3])
    found = pool(
        folder, prompts, pooling, writing=(2,), chunked_prefill_size=chunk, disable_overlap_schedule=not overlap
    )
    assert set(found.kinds) == set(range(len(prompts)))
    assert set(found.vectors) == set(found.kinds) - {2}
    for uid, vector in found.vectors.items():
        np.testing.assert_allclose(vector, expected(folder, prompts[uid], pooling), atol=2e-4)
    assert (max(found.cached.values()) > 0) == (pooling == "last")
