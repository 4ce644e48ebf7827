"""The questions: slices of JSONL files in a folder that the caller names, or a handful of our own."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

from backend.prompt import load_prompt, resolve_model

SAMPLES = Path(__file__).parent / "samples"
ROWS = {"hellaswag": 16, "gsm8k": 3}


def prepare(given: Path | None, folder: Path) -> str:
    """Write ``NAME.jsonl`` for each task into ``folder``; returns where they came from. Raises ``OSError``."""
    said = []
    for name, rows in ROWS.items():
        source = _find(given, name)
        lines = list(itertools.islice(_lines(source), rows))
        (folder / f"{name}.jsonl").write_text("".join(lines))
        said.append(f"{name}: {len(lines)} of {source.name if given else 'our own sample'}")
    return ", ".join(said)


def _find(given: Path | None, name: str) -> Path:
    if given is None:
        return SAMPLES / f"{name}.jsonl"
    found = sorted(given.glob(f"**/{name}*.jsonl*"))
    if not found:
        raise FileNotFoundError(f"{given} has no {name}*.jsonl or {name}*.jsonl.gz (--data DIR)")
    return found[0]


def _lines(path: Path) -> list[str]:
    raw = path.read_bytes()
    return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode().splitlines(keepends=True)


def save_tokenizer(folder: Path) -> None:
    """The default model's tokenizer as a folder that transformers reads: clients count tokens with it."""
    tokenizer = load_prompt(resolve_model(None)).tokenizer
    (folder / "tokenizer.json").write_text(tokenizer.to_json())
    settings = {
        **tokenizer.special_tokens,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": tokenizer.chat_template,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
