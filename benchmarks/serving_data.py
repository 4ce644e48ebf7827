"""What the serving benchmark asks."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WORDS = ("time", "year", "people", "way", "day", "thing", "woman", "child", "world", "school", "family", "group")
HEADS, HEAD_SHARE = 8, 0.75  # of the dataset 'shared': different heads, and the part of a prompt that they are
TURNS = 4  # of a conversation in the dataset 'chat'


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a text or token ids for ``/v1/completions``, or a conversation for ``/v1/chat/completions``."""

    model: str
    max_tokens: int
    prompt: str | Sequence[int] = ""
    messages: tuple[dict[str, str], ...] = ()
    ends_early: bool = False  # whether the model may stop before ``max_tokens``
    temperature: float | None = None  # None: what the server takes

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.messages else "/v1/completions"

    def body(self) -> dict[str, Any]:
        said: dict[str, Any] = {"messages": list(self.messages)} if self.messages else {"prompt": self.prompt}
        if self.temperature is not None:
            said["temperature"] = self.temperature
        return {"model": self.model, "max_tokens": self.max_tokens, "ignore_eos": not self.ends_early, **said}


def text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def unrelated(arguments: argparse.Namespace) -> list[Ask]:
    """Prompts with nothing in common, of half to the whole of ``--input-len`` words."""
    chance = random.Random(arguments.seed)
    lengths = [chance.randint(arguments.input_len // 2, arguments.input_len) for _ in range(arguments.requests)]
    return [Ask(arguments.model, arguments.output_len, text(chance, length)) for length in lengths]


def shared(arguments: argparse.Namespace) -> list[Ask]:
    """A few long heads, each with many different ends."""
    chance = random.Random(arguments.seed)
    length = int(arguments.input_len * HEAD_SHARE)
    heads = [text(chance, length) for _ in range(HEADS)]
    return [
        Ask(
            arguments.model,
            arguments.output_len,
            f"{chance.choice(heads)}. {text(chance, arguments.input_len - length)}",
        )
        for _ in range(arguments.requests)
    ]


def chat(arguments: argparse.Namespace) -> list[Ask]:
    """Conversations that repeat what was said, turn by turn; the answers in them are made up."""
    chance = random.Random(arguments.seed)
    each = max(arguments.input_len // (2 * TURNS), 1)
    conversations = []
    for _ in range(-(-arguments.requests // TURNS)):
        messages: list[dict[str, str]] = []
        turns = []
        for _ in range(TURNS):
            messages.append({"role": "user", "content": text(chance, each)})
            turns.append(tuple(messages))
            messages.append({"role": "assistant", "content": text(chance, each)})
        conversations.append(turns)
    ordered = [turns[turn] for turn in range(TURNS) for turns in conversations]
    return [Ask(arguments.model, arguments.output_len, messages=each) for each in ordered[: arguments.requests]]


def from_file(arguments: argparse.Namespace) -> list[Ask]:
    """Lines of JSON with ``prompt`` or ``messages``, and ``max_tokens`` if it is not ``--output-len``."""
    asks = []
    for number, line in enumerate(arguments.file.read_text().splitlines()[: arguments.requests], 1):
        entry = json.loads(line)
        if not entry.get("prompt") and not entry.get("messages"):
            raise SystemExit(f"{arguments.file}:{number} has neither prompt nor messages")
        tokens = entry.get("max_tokens", arguments.output_len)
        messages = tuple(entry.get("messages") or ())
        asks.append(Ask(arguments.model, tokens, entry.get("prompt") or "", messages, ends_early=True))
    return asks


DATASETS: dict[str, Callable[[argparse.Namespace], list[Ask]]] = {
    "random": unrelated,
    "shared": shared,
    "chat": chat,
    "file": from_file,
}


def load(name: str, arguments: argparse.Namespace) -> list[Ask]:
    """The requests of dataset ``name``; the same for the same seed."""
    return DATASETS[name](arguments)
