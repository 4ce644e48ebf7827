"""Real tokenizers: our ids beside golden ones and those of ``transformers``.

    python -m benchmarks.tokenizers --data DIR

``DIR`` holds, at any depth, archives (``*.tar.gz``) or folders with tokenizers (``tokenizer.json``), vocabularies
(``*.gguf``) and golden pairs of llama.cpp (``NAME.gguf.inp`` with texts, ``NAME.gguf.out`` with their ids). Each
vocabulary is compared with its own pairs; each folder with ``transformers`` on all texts, special tokens included, and
with the pairs of a vocabulary that it extends. Every text has to come back from its ids, at once and in a stream;
beside ``transformers`` as it comes back there, since some tokenizers change the form of characters.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from backend.frontend.detokenizer import IncrementalDetokenizer
from backend.prompt import ModelError, Tokenizer, load_tokenizer

SEPARATOR = "\n__ggml_vocab_test__\n"
EXTENDS = {"qwen3": "qwen2"}  # the same merges, with more added tokens


@dataclass(frozen=True, slots=True)
class Golden:
    """A vocabulary's pairs."""

    texts: list[str]
    ids: list[list[int]]
    decoded: list[str]


def read_golden(folder: Path) -> dict[str, Golden]:
    """By the name in ``ggml-vocab-NAME.gguf.inp``. What is behind the last pair is no text."""
    found = {}
    for path in sorted(folder.rglob("*.gguf.inp")):
        lines = path.with_suffix(".out").read_text(encoding="utf-8").splitlines()
        texts = path.read_bytes().decode("utf-8").split(SEPARATOR)[: len(lines)]
        ids = [[int(word) for word in line.split()] for line in lines]
        found[path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp")] = Golden(texts, ids, texts)
    return found


def vocabulary_lines(folder: Path, golden: dict[str, Golden]) -> Iterator[tuple[str, bool]]:
    """A line for each vocabulary with pairs, and whether all is equal."""
    for path in sorted(folder.rglob("ggml-vocab-*.gguf")):
        name = path.stem.removeprefix("ggml-vocab-")
        if name not in golden:
            continue
        try:
            tokenizer = load_tokenizer(path)
        except ModelError as error:
            yield f"| {name} (GGUF) | refused: {str(error).removeprefix(f'{path}: ')} | | |", True
            continue
        yield _line(f"{name} (GGUF)", tokenizer, "llama.cpp", golden[name])


def folder_lines(folder: Path, golden: dict[str, Golden]) -> Iterator[tuple[str, bool]]:
    texts = list(dict.fromkeys(text for pairs in golden.values() for text in pairs.texts))
    for path in sorted(folder.rglob("tokenizer.json")):
        name, tokenizer = path.parent.name, load_tokenizer(path.parent)
        reference = AutoTokenizer.from_pretrained(path.parent)
        special = "".join(reference.all_special_tokens) + "text"
        yield _line(name, tokenizer, "transformers", _theirs(reference, [*texts, special]))
        if EXTENDS.get(name) in golden:
            yield _line(name, tokenizer, f"llama.cpp, {EXTENDS[name]}", golden[EXTENDS[name]])


def _theirs(reference: Any, texts: list[str]) -> Golden:
    ids = [reference.encode(text, add_special_tokens=False) for text in texts]
    decoded = [reference.decode(row, clean_up_tokenization_spaces=False) for row in ids]
    return Golden(texts, ids, decoded)


def _line(name: str, tokenizer: Tokenizer, reference: str, golden: Golden) -> tuple[str, bool]:
    count, encoded = len(golden.ids), [tokenizer.encode(text, add_special_tokens=False) for text in golden.texts]
    equal = sum(mine == ids for mine, ids in zip(encoded, golden.ids, strict=True))
    back = sum(_comes_back(tokenizer, text, ids) for text, ids in zip(golden.decoded, golden.ids, strict=True))
    return f"| {name} | {reference} | {equal} of {count} | {back} of {count} |", equal == back == count


def _comes_back(tokenizer: Tokenizer, text: str, ids: list[int]) -> bool:
    stream = IncrementalDetokenizer(lambda window: tokenizer.decode(window, skip_special_tokens=False))
    streamed = "".join([*(stream.push([id]) for id in ids), stream.flush()])
    return tokenizer.decode(ids, skip_special_tokens=False) == streamed == text


def _unpack(data: Path, target: Path) -> None:
    for archive in sorted(data.rglob("*.tar.gz")):
        with tarfile.open(archive) as opened:
            opened.extractall(target / archive.name.removesuffix(".tar.gz"), filter="data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _unpack(args.data, Path(folder))
        places = (Path(folder), args.data)
        golden = {name: pairs for place in places for name, pairs in read_golden(place).items()}
        print("| tokenizer | beside | equal ids | text back |\n|---|---|---|---|")
        right = True
        for lines in (vocabulary_lines, folder_lines):
            for place in places:
                for line, equal in lines(place, golden):
                    right &= equal
                    print(line, flush=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
