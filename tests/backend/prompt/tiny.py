"""Tiny tokenizers and model files, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from gguf import GGUFWriter, TokenType
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "the capital of France is Paris, and the capital of Spain is Madrid. It's 2024, 2024 and 20245!",
    "def main():\n    return 12345 + 678\n\n\nnaïve café, Здравствуй мир, 日本語のテキスト 🙂",
    "user assistant system user assistant system What's the weather? I'll see; we've got 100 of them.",
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def train(pre_tokenizer: pre_tokenizers.PreTokenizer | None = None) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer of 400 tokens; merges cross digits unless ``pre_tokenizer`` cuts between them."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def write_folder(folder: Path, tokenizer: tokenizers.Tokenizer | None = None, **tokenizer_config: Any) -> Path:
    """A model folder with tokenizer.json, tokenizer_config.json and an empty config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (tokenizer or train()).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>", **tokenizer_config})
    write_json(folder / "config.json", {})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def add_tokenizer(writer: GGUFWriter, tokenizer: tokenizers.Tokenizer, pre: str = "gpt-2") -> None:
    """Put ``tokenizer`` into a GGUF file's metadata; its special tokens become control tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(tokens.index("<|im_start|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_chat_template(CHATML)


def save_gguf(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(path: Path, pre: str = "gpt-2", tokenizer: tokenizers.Tokenizer | None = None, **extra: bool) -> Path:
    """A GGUF file with a tokenizer and no weights; ``extra`` are flags under ``tokenizer.ggml``."""
    writer = GGUFWriter(path, "llama")
    add_tokenizer(writer, tokenizer or train(), pre)
    for key, value in extra.items():
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    save_gguf(writer)
    return path
