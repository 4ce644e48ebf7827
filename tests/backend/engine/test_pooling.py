"""Embeddings of a tiny model against ``transformers``, whatever cache, chunks and other requests do."""

import numpy as np
import pytest
import torch

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
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
    args = ServerArgs(
        model_path=folder, dtype="float32", skip_tokenizer_init=True, cpu_threads=1, page_size=4, max_total_tokens=96,
        max_running_requests=4, chunked_prefill_size=chunk, disable_overlap_schedule=not overlap, check_invariants=True,
    )  # fmt: skip
    scheduler = build_core(args, resolve_model(folder)).scheduler
    random = np.random.default_rng(1)
    prompts = [random.integers(3, VOCAB, length).tolist() for length in LENGTHS]
    prompts[4][:20] = prompts[3][:20]  # what the cache can give
    prompts.append(prompts[3])
    found, cached, finished = {}, {}, set()
    for uid, prompt in enumerate(prompts):
        options = {"pooling": pooling} if uid != 2 else {}  # one that writes text, among the others
        sampling = SamplingParams(max_new_tokens=0 if options else 9, temperature=0)
        new = NewRequest(uid, np.array(prompt, np.int32).tobytes(), sampling, [2], **options)
        scheduler.receive(ToScheduler(new=[new]))
    while scheduler.has_work:
        out = scheduler.step()
        cached.update(out.started)
        for uid, vector in out.embeddings:
            assert uid not in finished
            assert uid not in found
            found[uid] = np.frombuffer(vector, np.float32)
        finished.update(finish.uid for finish in out.finished)
    assert finished == set(range(len(prompts)))
    assert set(found) == finished - {2}
    for uid, vector in found.items():
        np.testing.assert_allclose(vector, expected(folder, prompts[uid], pooling), atol=2e-4)
    assert (max(cached.values()) > 0) == (pooling == "last")
