"""The five offline workloads on a GPU, with weightless models of real shapes. Prints one JSON line each, best of two.

    python -m benchmarks.gpu_offline qwen3-0.6b [--workloads mixed single decode64 prefill shared]

Workloads: ``mixed`` 256 requests, prompts and outputs uniform in 100..1024; ``single`` 128 in, 256 out; ``decode64``
64 x 1024 in, 256 out; ``prefill`` 16 x 4096 in, 1 out; ``shared`` 4 heads of 4096 x 64 questions of 128, 64 out.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch

from backend import Engine

Work = list[tuple[list[int], int]]  # (prompt, output tokens)

QWEN3_06B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "eos_token_id": 151645,
}
LLAMA31_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "eos_token_id": 128001,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
MODELS = {"qwen3-0.6b": QWEN3_06B, "llama-3.1-8b": LLAMA31_8B}


def ids(random: Random, vocab: int, count: int) -> list[int]:
    return [random.randrange(1000, vocab - 1000) for _ in range(count)]


def mixed(vocab: int) -> Work:
    r = Random(0)
    return [(ids(r, vocab, r.randint(100, 1024)), r.randint(100, 1024)) for _ in range(256)]


def single(vocab: int) -> Work:
    return [(ids(Random(1), vocab, 128), 256)]


def decode64(vocab: int) -> Work:
    r = Random(2)
    return [(ids(r, vocab, 1024), 256) for _ in range(64)]


def prefill(vocab: int) -> Work:
    r = Random(3)
    return [(ids(r, vocab, 4096), 1) for _ in range(16)]


def shared(vocab: int) -> Work:
    r = Random(4)
    heads = [ids(r, vocab, 4096) for _ in range(4)]
    return [(heads[i % 4] + ids(r, vocab, 128), 64) for i in range(256)]


WORKLOADS = {"mixed": mixed, "single": single, "decode64": decode64, "prefill": prefill, "shared": shared}


def run(engine: Engine, work: Work) -> float:
    """Seconds for the whole batch, from empty caches."""
    engine.flush_cache()
    sampling = [{"temperature": 0, "max_new_tokens": out, "ignore_eos": True} for _, out in work]
    started = time.perf_counter()
    engine.generate(input_ids=[prompt for prompt, _ in work], sampling_params=sampling, progress=False)
    return time.perf_counter() - started


def load(model: str, **server_args: Any) -> tuple[Engine, float]:
    """An engine with random weights in the shapes of ``model``, and the seconds that it took to start."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(MODELS[model]))
        started = time.perf_counter()
        defaults = {"load_format": "dummy", "skip_tokenizer_init": True, "max_running_requests": 256}
        engine = Engine(folder, **(defaults | server_args))
    gc.collect()
    gc.freeze()  # as the server's scheduler process does: a full collection stops the steps meanwhile
    return engine, time.perf_counter() - started


def settings(words: list[str]) -> dict[str, Any]:
    """``NAME=JSON`` words as settings; what is no JSON is a text."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def measure(engine: Engine, model: str, name: str, repeats: int = 2) -> dict[str, Any]:
    """One workload, the best of ``repeats``."""
    work = WORKLOADS[name](MODELS[model]["vocab_size"])
    seconds = min(run(engine, work) for _ in range(repeats))
    return {
        "workload": name,
        "seconds": round(seconds, 3),
        "input_tok_s": round(sum(len(prompt) for prompt, _ in work) / seconds),
        "output_tok_s": round(sum(out for _, out in work) / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings of the engine")
    args = parser.parse_args()
    engine, loaded = load(args.model, **settings(args.set))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    print(json.dumps({"model": args.model, "device": device, "start_seconds": round(loaded, 1)}), flush=True)
    for name in args.workloads:
        print(json.dumps(measure(engine, args.model, name)), flush=True)


if __name__ == "__main__":
    main()
