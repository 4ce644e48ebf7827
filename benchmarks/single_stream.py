"""Decode speed of one stream beside ``transformers`` (and llama.cpp, if ``llama_cpp`` is importable), in turns.

    python -m benchmarks.single_stream [--new-tokens 48] [--prompt-tokens 64] [--rounds 5] [--model-path PATH]

Each round lets each of them continue the same prompt greedily; the figure is the median over the rounds of tokens a
second, the prompt's own time (measured with one new token) taken out. Taking turns makes the ratios hold on a busy
machine.
``transformers`` has dense weights of the same dtype; llama.cpp reads the GGUF file as it is, four bits a weight.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from backend import Engine
from backend.prompt import resolve_model
from benchmarks.offline import load_transformers, prompts, run_engine, run_transformers
from benchmarks.report import Row, report

GOAL = 1.5  # times transformers

Run = Callable[[int], float]  # new tokens -> seconds


def llama_run(path: str, prompt: list[int], threads: int) -> Run:
    """llama.cpp on the same GGUF file; its prompt is evaluated outside the clock."""
    from llama_cpp import Llama

    llama: Any = Llama(model_path=path, n_ctx=2048, n_threads=threads, verbose=False)

    def run(new_tokens: int) -> float:
        llama.reset()
        llama.eval(prompt)
        started = time.perf_counter()
        for _ in range(new_tokens - 1):
            llama.eval([llama.sample(temp=0.0)])
        return time.perf_counter() - started

    return run


def decode_rate(run: Run, new_tokens: int) -> float:
    """Tokens a second after the first one."""
    first = run(1)
    return (new_tokens - 1) / max(run(new_tokens) - first, 1e-9)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Name -> median tokens a second."""
    source = resolve_model(args.model_path)
    model = load_transformers(source, getattr(torch, args.dtype))
    with Engine(args.model_path, dtype=args.dtype, max_total_tokens=8192) as engine:
        batch = prompts(1, args.prompt_tokens, engine.tokenizer)
        runs: dict[str, Run] = {
            "transformers": lambda count: run_transformers(model, batch, count)[0],
            "warmlane": lambda count: run_engine(engine, batch, count)[0],
        }
        if source.kind == "gguf" and importlib.util.find_spec("llama_cpp") is not None:
            runs["llama.cpp (4 bits)"] = llama_run(str(source.path), batch[0], torch.get_num_threads())
        for run in runs.values():
            run(4)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                rates[name].append(decode_rate(run, args.new_tokens))
    return {name: statistics.median(values) for name, values in rates.items()}


def rows(args: argparse.Namespace) -> list[Row]:
    """The table's rows for these settings."""
    rates = measure(args)
    slow, fast = rates["transformers"], rates["warmlane"]
    detail = ", ".join(f"{name} {rate:.1f} tok/s" for name, rate in rates.items())
    return [
        Row("single stream / transformers", fast / slow, "x", GOAL, at_least=True, detail=f"{args.dtype}: {detail}")
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model-path")
    made.add_argument("--new-tokens", type=int, default=48)
    made.add_argument("--prompt-tokens", type=int, default=64)
    made.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    made.add_argument("--rounds", type=int, default=5)
    return made


if __name__ == "__main__":
    report(rows(parser().parse_args()))
