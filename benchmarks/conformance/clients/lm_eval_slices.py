"""lm-evaluation-harness over ``/v1/completions``: a slice of HellaSwag (log probabilities) and of GSM8K (texts)."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from cases import arguments, case, check, note, version

TASKS = Path(__file__).parents[1] / "tasks"


def evaluate(name: str, url: str, model: str, tokenizer: str, data: Path) -> dict[str, Any]:
    """The harness's own results for the rows of ``data/NAME.jsonl``."""
    task = yaml.safe_load((TASKS / f"{name}.yaml").read_text())
    task["dataset_kwargs"] = {"data_files": str(data / f"{name}.jsonl"), "cache_dir": str(data / "cache")}
    given = {
        "base_url": f"{url}/v1/completions",
        "model": model,
        "tokenizer": tokenizer,
        "tokenizer_backend": "huggingface",
        "num_concurrent": 4,
        "max_retries": 1,
        "timeout": 200,
    }
    return lm_eval.simple_evaluate(
        model="local-completions", model_args=given, tasks=[task], log_samples=True, bootstrap_iters=0
    )


def hellaswag(url: str, model: str, tokenizer: str, data: Path, folder: Path) -> None:
    found = evaluate("hellaswag", url, model, tokenizer, data)
    scores, samples = found["results"]["hellaswag_local"], found["samples"]["hellaswag_local"]
    note(f"HellaSwag, {len(samples)} questions: acc {scores['acc,none']:.3f}, acc_norm {scores['acc_norm,none']:.3f}")
    rows = [
        {
            "pairs": [list(pair.values()) if isinstance(pair, dict) else list(pair) for pair in _arguments(sample)],
            "logprobs": [response[0] for response in sample["filtered_resps"]],
            "label": int(sample["target"]),
        }
        for sample in samples
    ]
    (folder / "hellaswag.json").write_text(json.dumps(rows))
    check(all(value < 0 for row in rows for value in row["logprobs"]), "log probabilities below zero")


def _arguments(sample: dict[str, Any]) -> list[Any]:
    """(context, continuation) of each choice."""
    given = sample["arguments"]
    return list(given.values()) if isinstance(given, dict) else given


def gsm8k(url: str, model: str, tokenizer: str, data: Path) -> None:
    found = evaluate("gsm8k", url, model, tokenizer, data)
    score = found["results"]["gsm8k_local"]["exact_match,flexible-extract"]
    samples = found["samples"]["gsm8k_local"]
    note(f"GSM8K, {len(samples)} questions: exact match {score:.3f} (a model of 135M parameters knows no better)")
    check(all(sample["resps"][0][0].strip() for sample in samples), "an answer to each question")


def main() -> None:
    args = arguments()
    version(importlib.metadata.version("lm_eval"))
    where = (args.url, args.model, args.tokenizer, Path(args.data))
    case("hellaswag (echo, logprobs, token ids)", lambda: hellaswag(*where, Path(args.folder)))
    case("gsm8k (generate_until)", lambda: gsm8k(*where))


if __name__ == "__main__":
    main()
