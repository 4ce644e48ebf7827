"""How long one prompt's first token takes on an engine that does nothing else: short steps as CUDA graphs, or not.

    python -m benchmarks.gpu_first_token qwen3-0.6b [--tokens 128 512 2048]

Prints one JSON line for each setting: median milliseconds by the tokens of the prompt, none of which were seen before.
"""

from __future__ import annotations

import argparse
import json
import time
from random import Random
from statistics import median

from backend import Engine
from benchmarks.gpu_offline import MODELS, ids, load

SETTINGS = {"captured": {}, "kernel by kernel": {"disable_prefill_cuda_graph": True}}
TOKENS = (128, 512, 1024, 2048, 4096)
REPEATS = 15
WARM_UP = 4


def first_tokens(engine: Engine, vocab: int, tokens: int) -> float:
    """Median milliseconds."""
    taken = []
    for i in range(REPEATS):
        prompt = ids(Random(tokens + i * 100_000), vocab, tokens)
        started = time.perf_counter()
        engine.generate(input_ids=[prompt], sampling_params={"max_new_tokens": 1, "temperature": 0}, progress=False)
        taken.append(time.perf_counter() - started)
    return median(taken[WARM_UP:]) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS))
    args = parser.parse_args()
    vocab = MODELS[args.model]["vocab_size"]
    for name, setting in SETTINGS.items():
        engine, _ = load(args.model, max_total_tokens=1 << 18, **setting)
        with engine:
            found = {tokens: round(first_tokens(engine, vocab, tokens), 2) for tokens in args.tokens}
        print(json.dumps({"setting": name, "ms": found}), flush=True)


if __name__ == "__main__":
    main()
