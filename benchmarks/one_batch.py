"""Latency of one batch: how long until all its first tokens are there, and between the others.

    python -m benchmarks.one_batch [--model-path DIR | --dummy qwen3-0.6b] [--batch 1 8 64] [--input-len 512]
        [--output-len 64] [--set NAME=JSON ...] [--json FILE]

Token ids are random and every prompt is another, so nothing comes from the prefix cache. Medians of ``--repeats`` runs,
after one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple

from backend import Engine
from benchmarks.gpu_offline import MODELS, ids, settings

VOCAB = 30000  # every model has as many


class Run(NamedTuple):
    """Seconds: until the last first token, and from then to the end."""

    first: float
    rest: float


def run(engine: Engine, batch: int, input_len: int, output_len: int, seed: int) -> Run:
    random = Random(seed)
    prompts = [ids(random, VOCAB, input_len) for _ in range(batch)]
    sampling = {"temperature": 0, "max_new_tokens": output_len, "ignore_eos": True}
    engine.flush_cache()
    started = time.perf_counter()
    waiting = set(range(batch))
    first = started
    for answer in engine.generate(input_ids=prompts, sampling_params=sampling, stream=True):
        if waiting:
            waiting.discard(answer.get("index", 0))
            first = time.perf_counter()
    return Run(first - started, time.perf_counter() - first)


def measure(engine: Engine, batch: int, input_len: int, output_len: int, repeats: int) -> dict[str, Any]:
    runs = [run(engine, batch, input_len, output_len, seed) for seed in range(repeats + 1)][1:]
    first, rest = (median(times) for times in zip(*runs, strict=True))
    return {
        "batch": batch,
        "input_len": input_len,
        "output_len": output_len,
        "first_token_ms": round(first * 1e3, 2),
        "token_ms": round(rest * 1e3 / max(output_len - 1, 1), 3),
        "input_tok_s": round(batch * input_len / first),
        "output_tok_s": round(batch * (output_len - 1) / rest, 1) if output_len > 1 else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", help="default: the default model")
    parser.add_argument("--dummy", choices=MODELS, help="random weights in the shapes of this model instead")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings of the engine")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        given = {"skip_tokenizer_init": True} | settings(arguments.set)
        if arguments.dummy:
            Path(folder, "config.json").write_text(json.dumps(MODELS[arguments.dummy]))
            given = {"load_format": "dummy"} | given
        engine = Engine(folder if arguments.dummy else arguments.model_path, **given)
    for batch in arguments.batch:
        found.append(measure(engine, batch, arguments.input_len, arguments.output_len, arguments.repeats))
        print(json.dumps(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
