"""What transformers makes of the questions that a harness asked our server: the same model, the same choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from backend.prompt import load_prompt, resolve_model
from benchmarks.conformance.outcome import Case, Outcome
from benchmarks.offline import load_transformers

SAME_PICKS = 0.9  # of the questions; two choices may be equally likely within the rounding of bfloat16


@torch.inference_mode()
def compare(saved: Path, outcome: Outcome) -> None:
    """Add a case to the harness's outcome: does transformers choose the same endings?"""
    rows = json.loads(saved.read_text())
    source = resolve_model(None)
    model, tokenizer = load_transformers(source, torch.bfloat16), load_prompt(source).tokenizer
    theirs = [[_logprob(model, tokenizer, *pair) for pair in row["pairs"]] for row in rows]
    ours = [row["logprobs"] for row in rows]
    same = sum(_best(a) == _best(b) for a, b in zip(ours, theirs, strict=True)) / len(rows)
    right = [_share(rows, scores) for scores in (ours, theirs)]
    far = max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))
    outcome.notes.append(
        f"HellaSwag acc by our log probabilities {right[0]:.3f}, by transformers' {right[1]:.3f}; "
        f"equal picks {same:.2f}, largest difference of a whole ending's log probability {far:.2f}"
    )
    state = "passed" if same >= SAME_PICKS else "failed"
    outcome.cases.append(Case("hellaswag as transformers answers it", state, f"equal picks: {same:.2f}"))


def _logprob(model: Any, tokenizer: Any, context: str, ending: str) -> float:
    """Of the ending's tokens; where they begin is told as the harness tells it."""
    whole, begin = tokenizer.encode(context + ending), len(tokenizer.encode(context))
    told = whole[begin:]
    logits = model(torch.tensor([whole]), logits_to_keep=len(told) + 1).logits[0, :-1]
    return float(logits.float().log_softmax(-1).gather(-1, torch.tensor(told)[:, None]).sum())


def _best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _share(rows: list[dict[str, Any]], scores: list[list[float]]) -> float:
    return sum(_best(each) == row["label"] for row, each in zip(rows, scores, strict=True)) / len(rows)
