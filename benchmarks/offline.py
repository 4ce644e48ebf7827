"""Offline throughput of the Engine beside ``transformers``, same prompts, same model, same dtype, in one run.

    python -m benchmarks.offline [--prompts 32] [--new-tokens 64] [--shared-tokens 0] [--model-path PATH]

``transformers`` completes prompts one after the other with ``generate``; the Engine takes all of them as one batch.
Both run greedily and never stop early, on dense weights of the same dtype: those of a GGUF file are dequantised first.
``transformers`` gets the first prompts only (``--reference-prompts``), and the time of all of them is taken to be in
proportion: one by one, each prompt takes the same. The share of equal tokens is printed too (bfloat16 rounds
differently in batches).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from backend import Engine
from backend.loader.model_config import load_model_config
from backend.loader.weights import iterate_weights
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
    """The model of ``transformers`` with dense weights: its own GGUF loader may keep them packed, which is slower."""
    if source.kind != "gguf":
        return AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype).eval()
    config = AutoConfig.from_pretrained(source.path.parent, gguf_file=source.path.name)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    weights = dict(iterate_weights(source, load_model_config(source)))
    found = model.load_state_dict(weights, strict=False)
    tied = ["lm_head.weight"] if config.tie_word_embeddings else []
    if found.unexpected_keys or set(found.missing_keys) - set(tied):
        raise SystemExit(f"weights that do not fit transformers' model: {found}")
    model.tie_weights()
    return model.eval()


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
    parser.add_argument("--reference-prompts", type=int, default=8, help="prompts that transformers gets")
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
    first = batch[: args.reference_prompts]
    reference_seconds, reference = run_transformers(model, first, args.new_tokens)

    tokens = len(first) * args.new_tokens
    pairs = zip(outputs[: len(first)], reference, strict=True)
    equal = sum(a == b for x, y in pairs for a, b in zip(x, y, strict=True))
    slow, fast = tokens / reference_seconds, len(batch) * args.new_tokens / seconds
    print(f"{len(batch)} prompts, {args.shared_tokens} shared tokens, {args.new_tokens} new tokens each")
    print(f"{torch.get_num_threads()} threads, dense {args.dtype} weights on both sides")
    print(f"{'':<44}{'dtype':>9}{'seconds':>9}{'tok/s':>9}")
    row(f"transformers, one by one, first {len(first)} prompts", args.dtype, reference_seconds, slow)
    row(f"transformers, all {len(batch)} in proportion", args.dtype, len(batch) * args.new_tokens / slow, slow)
    row(f"Engine, one batch of {len(batch)}", args.dtype, seconds, fast, f"   {fast / slow:.1f}x")
    row("Engine, one prompt", args.dtype, alone, args.new_tokens / alone, f"   {args.new_tokens / alone / slow:.1f}x")
    print(f"equal tokens of the first {len(first)} prompts: {equal / tokens:.3f}")


def row(name: str, dtype: str, seconds: float, rate: float, times: str = "") -> None:
    print(f"{name:<44}{dtype:>9}{seconds:>9.2f}{rate:>9.1f}{times}")


if __name__ == "__main__":
    main()
