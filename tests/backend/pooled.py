"""What a scheduler makes of prompts whose hidden states are wanted, among requests that write text."""

from typing import NamedTuple

import numpy as np

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import NewRequest, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams


class Pooled(NamedTuple):
    vectors: dict[int, np.ndarray]  # by the prompt's number
    cached: dict[int, int]  # tokens
    kinds: dict[int, str]  # how each request ended


def pool(folder, prompts, pooling, writing=(), **args):
    """The prompts all at once; those numbered in ``writing`` are continued instead."""
    settings = {
        "dtype": "float32",
        "skip_tokenizer_init": True,
        "cpu_threads": 1,
        "page_size": 4,
        "max_total_tokens": 96,
        "max_running_requests": 4,
        "check_invariants": True,
    }
    scheduler = build_core(ServerArgs(model_path=folder, **settings | args), resolve_model(folder)).scheduler
    for uid, prompt in enumerate(prompts):
        wanted = "" if uid in writing else pooling
        sampling = SamplingParams(max_new_tokens=0 if wanted else 9, temperature=0)
        new = NewRequest(uid, np.array(prompt, np.int32).tobytes(), sampling, [2], pooling=wanted)
        scheduler.receive(ToScheduler(new=[new]))
    result = Pooled({}, {}, {})
    while scheduler.has_work:
        out = scheduler.step()
        result.cached.update(out.started)
        for uid, vector in out.embeddings:
            assert uid not in result.kinds
            assert uid not in result.vectors
            result.vectors[uid] = np.frombuffer(vector, np.float32)
        result.kinds.update((finish.uid, finish.kind) for finish in out.finished)
    return result
