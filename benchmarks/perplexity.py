"""Real weights: perplexity, and a slice of HellaSwag, of a served model beside ``transformers``, both in float32.

    python -m benchmarks.perplexity --data DIR [--model-path PATH ...] [--windows 4] [--rows 50] [--page]

``DIR`` holds ``hellaswag_val_1000.jsonl.gz`` (Zellers et al., 2019; rows of ``ctx``, ``endings``, ``label``), anywhere
below. Perplexity is that of its true texts, joined and cut into windows; a row counts as right when the true ending
has the best log-probability a character. The server is asked over HTTP for the log-probabilities of token ids;
``transformers`` reads the same file by itself. ``--page`` keeps the figures for ``docs/generate_models.py``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from backend.prompt import ModelSource, Tokenizer, load_tokenizer, resolve_model
from benchmarks.processes import free_port, running

RESULTS = Path(__file__).with_name("results") / "perplexity.json"
HELLASWAG = "hellaswag_val_1000.jsonl.gz"
WINDOW = 1024
Score = Callable[[list[list[int]]], list[list[float]]]  # token ids -> the log-probability of each but the first


@dataclass(frozen=True, slots=True)
class Row:
    """A beginning with its endings, as token ids; ``starts`` is where each ending begins."""

    choices: list[list[int]]
    starts: list[int]
    characters: list[int]
    label: int

    def chosen(self, scores: Sequence[Sequence[float]]) -> int:
        """The ending with the best mean log-probability a character."""
        sums = [sum(scores[i][start - 1 :]) / self.characters[i] for i, start in enumerate(self.starts)]
        return max(range(len(sums)), key=sums.__getitem__)


@dataclass(frozen=True, slots=True)
class Figures:
    """One model's."""

    model: str
    tokens: int
    perplexity: float
    reference_perplexity: float
    rows: int
    right: int
    reference_right: int
    same_choice: int
    largest_difference: float  # of a token's log-probability

    def line(self) -> str:
        return (
            f"{self.model}: perplexity {self.perplexity:.4f} against {self.reference_perplexity:.4f} "
            f"({self.tokens} tokens); HellaSwag {self.right} against {self.reference_right} of {self.rows} right, "
            f"{self.same_choice} chosen alike; largest difference of a log-probability {self.largest_difference:.1e}"
        )


def read_rows(data: Path, count: int) -> list[dict[str, Any]]:
    found = next(iter(sorted(data.rglob(HELLASWAG))), None)
    if found is None:
        raise SystemExit(f"{data} holds no {HELLASWAG}")
    with gzip.open(found, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


def windows(rows: Sequence[dict[str, Any]], tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Windows of the true texts, each with what the model wants before a text."""
    text = "\n\n".join(f"{row['ctx']} {row['endings'][row['label']]}" for row in rows)
    before = tokenizer.encode("")
    ids, size = tokenizer.encode(text, add_special_tokens=False), WINDOW - len(before)
    whole = len(ids) // size
    if whole < count:
        raise SystemExit(f"--windows {count}: the texts make {whole} windows of {WINDOW} tokens only")
    return [before + ids[at * size : (at + 1) * size] for at in range(count)]


def question(row: dict[str, Any], tokenizer: Tokenizer) -> Row:
    begin = tokenizer.encode(row["ctx"])
    endings = [" " + ending for ending in row["endings"]]
    choices = [tokenizer.encode(row["ctx"] + ending) for ending in endings]
    shared = [_shared(begin, choice) for choice in choices]
    return Row(choices, shared, [len(ending) for ending in endings], int(row["label"]))


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))


def served(url: str) -> Score:
    """Over ``/generate``."""

    def score(batch: list[list[int]]) -> list[list[float]]:
        body = {
            "input_ids": batch,
            "sampling_params": {"max_new_tokens": 1, "temperature": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
        }
        request = urllib.request.Request(
            f"{url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=3600) as answer:
            results = json.load(answer)
        return [[place[0] for place in result["meta_info"]["input_token_logprobs"][1:]] for result in results]

    return score


def referred(source: ModelSource) -> Score:
    """By ``transformers``, one row after the other."""
    folder, file = (source.path.parent, source.path.name) if source.kind == "gguf" else (source.path, None)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()

    @torch.inference_mode()
    def score(batch: list[list[int]]) -> list[list[float]]:
        found = []
        for ids in batch:
            logits = model(torch.tensor([ids])).logits[0, :-1]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
            found.append(chosen[:, 0].tolist())
        return found

    return score


def measure(name: str, score: Score, reference: Score, texts: list[list[int]], rows: list[Row]) -> Figures:
    ours, theirs = score(texts), reference(texts)
    count = sum(map(len, ours))
    pairs = [(score(row.choices), reference(row.choices)) for row in rows]
    chosen = [(row.label, row.chosen(mine), row.chosen(other)) for row, (mine, other) in zip(rows, pairs, strict=True)]
    lists = [
        *zip(ours, theirs, strict=True),
        *(pair for mine, other in pairs for pair in zip(mine, other, strict=True)),
    ]
    return Figures(
        model=name,
        tokens=count,
        perplexity=math.exp(-sum(map(sum, ours)) / count),
        reference_perplexity=math.exp(-sum(map(sum, theirs)) / count),
        rows=len(rows),
        right=sum(label == mine for label, mine, _ in chosen),
        reference_right=sum(label == other for label, _, other in chosen),
        same_choice=sum(mine == other for _, mine, other in chosen),
        largest_difference=max(abs(a - b) for mine, other in lists for a, b in zip(mine, other, strict=True)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model-path", action="append", help="GGUF file or folder; again for more; none: the default")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    stored, figures = read_rows(args.data, 1000), []
    for path in args.model_path or [None]:
        source = resolve_model(path)
        tokenizer, port = load_tokenizer(source), free_port()
        texts = windows(stored, tokenizer, args.windows)
        rows = [question(row, tokenizer) for row in stored[: args.rows]]
        flags = ["--model-path", str(source.path), "--dtype", "float32", "--port", str(port), "--log-level", "warning"]
        with running("backend.launch_server", *flags, port=port) as url:
            figures.append(measure(source.name, served(url), referred(source), texts, rows))
        print(figures[-1].line(), flush=True)
    if args.page:
        RESULTS.write_text(json.dumps([asdict(each) for each in figures], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
