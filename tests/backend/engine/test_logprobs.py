"""Log probabilities against ``transformers``, whatever the chunks, the cache and the batch."""

import numpy as np
import pytest
import torch

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import LogprobSpec, NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.tiny_models import load_reference, write_model

PROMPT = [5, 17, 33, 8, 61, 20, 44, 9, 71, 30, 12, 52, 7, 88, 41]
TOP = 3
IDS = [4, 50]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model("llama", tmp_path_factory.mktemp("llama"))


def run(folder, start, overlap=True, chunk=None, warm=False, max_new=5):
    """(cached tokens, output tokens, prompt places, output places) of one request beside another one."""
    args = ServerArgs(
        model_path=folder,
        dtype="float32",
        cpu_threads=1,
        page_size=2,
        max_total_tokens=512,
        chunked_prefill_size=chunk,
        disable_overlap_schedule=not overlap,
        check_invariants=True,
    )
    scheduler = build_core(args, resolve_model(folder)).scheduler
    greedy = SamplingParams(temperature=0, max_new_tokens=max_new, frequency_penalty=0.5)
    ids = np.array(PROMPT, np.int32).tobytes()
    requests = [
        NewRequest(2, ids, greedy, [], logprobs=LogprobSpec(start, TOP, IDS)),
        NewRequest(3, ids[:20], greedy, []),
    ]
    if warm:
        scheduler.receive(ToScheduler(new=[NewRequest(1, ids, greedy, [])]))
        while scheduler.has_work:
            scheduler.step()
    scheduler.receive(ToScheduler(new=requests))
    cached, tokens, prompt, output = {}, [], [], []
    while scheduler.has_work:
        out = scheduler.step()
        cached |= dict(out.started)
        tokens += [token for uid, token in zip(out.uids, out.tokens, strict=True) if uid == 2]
        prompt += out.prompt_logprobs
        output += out.logprobs
    assert {place.uid for place in prompt + output} == {2}
    return cached[2], tokens, prompt, output


def expected(folder, tokens):
    """float64[len, vocab] log probabilities of what follows each token."""
    with torch.inference_mode():
        logits = load_reference(folder)(torch.tensor([PROMPT + tokens])).logits[0]
    return torch.log_softmax(logits.double(), -1)


def check(place, token, logprobs):
    assert place.token == token
    assert place.logprob == pytest.approx(float(logprobs[token]), abs=1e-4)
    best = logprobs.topk(TOP)
    assert [token for _, token in place.top] == best.indices.tolist()
    assert [value for value, _ in place.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    assert place.ids == pytest.approx(logprobs[IDS].tolist(), abs=1e-4)


@pytest.mark.parametrize("start", [-1, 0, 1, 7, 14, 15])
@pytest.mark.parametrize("how", [{}, {"chunk": 4}, {"warm": True}, {"chunk": 1, "overlap": False}], ids=str)
def test_logprobs_equal_the_reference(folder, start, how):
    _, tokens, prompt, output = run(folder, start, **how)
    reference = expected(folder, tokens)
    assert len(output) == len(tokens) == 5
    for i, place in enumerate(output):
        check(place, tokens[i], reference[len(PROMPT) + i - 1])
    first = len(PROMPT) if start < 0 else max(start, 1)
    assert len(prompt) == len(PROMPT) - min(first, len(PROMPT))
    for position, place in enumerate(prompt, start=first):
        check(place, PROMPT[position], reference[position - 1])


def test_the_cache_serves_what_needs_no_logprobs(folder):
    assert run(folder, -1, warm=True)[0] == 14
    assert run(folder, 9, warm=True)[0] == 8
    assert run(folder, 0, warm=True)[0] == 0


def test_a_prompt_alone_can_be_scored(folder):
    _, tokens, prompt, output = run(folder, 0, max_new=0)
    assert tokens == output == []
    assert len(prompt) == len(PROMPT) - 1
