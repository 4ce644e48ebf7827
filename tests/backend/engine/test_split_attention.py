"""One attention backend for decoding rows and another for prompts, in steps that hold both kinds of rows."""

import numpy as np
import pytest

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.tiny_models import VOCAB, write_model

LENGTHS = [3, 21, 9, 30]


def answers(folder, **backends):
    args = ServerArgs(
        model_path=folder, dtype="float32", skip_tokenizer_init=True, cpu_threads=1, page_size=4, max_total_tokens=256,
        chunked_prefill_size=8, **backends,
    )  # fmt: skip
    scheduler = build_core(args, resolve_model(folder)).scheduler
    random = np.random.default_rng(2)
    sampling = SamplingParams(max_new_tokens=6, temperature=0, ignore_eos=True)
    found = {}
    for uid, length in enumerate(LENGTHS):  # each prompt is computed beside rows that decode
        prompt = random.integers(3, VOCAB, length).astype(np.int32).tobytes()
        scheduler.receive(ToScheduler(new=[NewRequest(uid, prompt, sampling, [])]))
        take(scheduler.step(), found)
    while scheduler.has_work:
        take(scheduler.step(), found)
    return found


def take(out, found):
    for uid, token in zip(out.uids, out.tokens, strict=True):
        found.setdefault(uid, []).append(token)


@pytest.mark.parametrize(("decode", "prefill"), [("triton", "torch_native"), ("torch_native", "triton")])
def test_tokens_are_those_of_one_backend(tmp_path, decode, prefill):
    folder = write_model("llama", tmp_path)
    expected = answers(folder, attention_backend="torch_native")
    assert {uid: len(tokens) for uid, tokens in expected.items()} == dict.fromkeys(range(len(LENGTHS)), 6)
    assert answers(folder, decode_attention_backend=decode, prefill_attention_backend=prefill) == expected
