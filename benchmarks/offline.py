"""Offline throughput of the Engine beside ``transformers``, same prompts, same model, same dtype, in one run.

    python -m benchmarks.offline [--prompts 32] [--new-tokens 64] [--shared-tokens 0] [--model-path PATH]

``transformers`` completes the prompts one after the other with ``generate``; the Engine takes them as one batch. Both
run greedily and never stop early. The share of equal tokens is printed too (bfloat16 rounds differently in batches).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from backend import Engine
from backend.prompt import ModelSource, resolve_model

TOPICS = [
    "the sea",
    "a small engine",
    "old maps",
    "the history of bread",
    "winter",
    "a lost key",
    "two rivers",
    "trains",
]


def prompts(count: int, shared_tokens: int, tokenizer: Any) -> list[list[int]]:
    """Short questions, after a head of ``shared_tokens`` equal tokens."""
    sentence = "You answer in plain words and short sentences. "
    head = tokenizer.encode(sentence * (shared_tokens // 8 + 1))[:shared_tokens]
    topics = (TOPICS[i % len(TOPICS)] for i in range(count))
    return [head + tokenizer.encode(f"Note {i}. Tell me something about {topic}.") for i, topic in enumerate(topics)]


def load_transformers(source: ModelSource, dtype: torch.dtype) -> Any:
    if source.kind == "gguf":
        folder, extra = source.path.parent, {"gguf_file": source.path.name}
    else:
        folder, extra = source.path, {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **extra).eval()


@torch.inference_mode()
def run_transformers(model: Any, batch: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
    outputs, started = [], time.perf_counter()
    for ids in batch:
        tensor = torch.tensor([ids])
        out = model.generate(
            tensor,
            attention_mask=torch.ones_like(tensor),
            do_sample=False,
            min_new_tokens=new_tokens,
            max_new_tokens=new_tokens,
            pad_token_id=0,
        )
        outputs.append(out[0, len(ids) :].tolist())
    return time.perf_counter() - started, outputs


def run_engine(engine: Engine, batch: list[list[int]], new_tokens: int) -> tuple[float, list[list[int]]]:
    engine.flush_cache()
    started = time.perf_counter()
    sampling = {"temperature": 0, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    results = engine.generate(input_ids=batch, sampling_params=sampling, progress=False)
    return time.perf_counter() - started, [result["output_ids"] for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--shared-tokens", type=int, default=0)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeat", type=int, default=3, help="Engine runs; the median counts")
    args = parser.parse_args()

    with Engine(args.model_path, dtype=args.dtype) as engine:
        batch = prompts(args.prompts, args.shared_tokens, engine.tokenizer)
        run_engine(engine, batch[:2], 4)
        runs = sorted((run_engine(engine, batch, args.new_tokens) for _ in range(args.repeat)), key=lambda run: run[0])
        seconds, outputs = runs[len(runs) // 2]
        alone, _ = run_engine(engine, batch[:1], args.new_tokens)
    model = load_transformers(resolve_model(args.model_path), getattr(torch, args.dtype))
    run_transformers(model, batch[:1], 4)
    reference_seconds, reference = run_transformers(model, batch, args.new_tokens)

    total = args.prompts * args.new_tokens
    equal = sum(a == b for x, y in zip(outputs, reference, strict=True) for a, b in zip(x, y, strict=True))
    print(f"{args.prompts} prompts, {args.shared_tokens} shared tokens, {args.new_tokens} new tokens each")
    print(f"{args.dtype}, {torch.get_num_threads()} threads")
    print(f"{'':<28}{'seconds':>9}{'tok/s':>9}")
    print(f"{'transformers, one by one':<28}{reference_seconds:>9.2f}{total / reference_seconds:>9.1f}")
    print(f"{'Engine, one batch':<28}{seconds:>9.2f}{total / seconds:>9.1f}   {reference_seconds / seconds:.1f}x")
    print(f"{'Engine, one prompt':<28}{alone:>9.2f}{args.new_tokens / alone:>9.1f}")
    print(f"equal tokens: {equal / total:.3f}")


if __name__ == "__main__":
    main()
