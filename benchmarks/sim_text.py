"""What a simulated backend makes of text: tokens, the blocks that its prefix cache knows, and answers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
import xxhash

from policies.sim import SimRequest
from policies.sim.request import mix

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TOKEN = re.compile(r"\s*\S+")
_LINE = re.compile(r"\n[^\n]*|[^\n]+")


class SimTokenizer(ABC):
    """Prompts come as parts (a part for each message); ``seed`` is that of the request."""

    @abstractmethod
    def tokens(self, text: str) -> list[str]:
        """``text`` in pieces of a token each."""

    def ids(self, text: str) -> list[int]:
        """A number for each token."""
        return [crc32(token.encode()) for token in self.tokens(text)]

    @abstractmethod
    def pieces(self, text: str) -> Iterator[tuple[str, int]]:
        """``text`` cut where the cache may end: pieces, and the tokens in each."""

    @abstractmethod
    def render(self, messages: Sequence[dict]) -> list[str]:
        """The parts that a conversation is made of."""

    @abstractmethod
    def split(self, prompt: str) -> tuple[str, str]:
        """A plain prompt, and the answer that it already holds."""

    @abstractmethod
    def answer(self, prompt: Sequence[str], seed: int | None, begin: int, end: int) -> str:
        """The answer's tokens from ``begin`` to ``end``."""

    def request(self, now: float, parts: Sequence[str], output_tokens: int, seed: int | None = None) -> SimRequest:
        """A prompt as a chain of pieces, each named by all the text up to its end."""
        segments, sizes, name = [], [], 0
        for part in parts:
            for piece, size in self.pieces(part):
                name = _name(piece, name)
                segments.append(name)
                sizes.append(size)
        answer = None if seed is None else _name(self.answer(parts, seed, 0, output_tokens), name)
        return SimRequest(now, tuple(segments), tuple(sizes), output_tokens, answer)


def _name(piece: str, before: int) -> int:
    return xxhash.xxh3_64_intdigest(piece.encode(), before)


class Words(SimTokenizer):
    """A token is a word with the space before it. Answers depend on the prompt, so that they can be checked."""

    BLOCK = 16

    def tokens(self, text: str) -> list[str]:
        return _TOKEN.findall(text)

    def pieces(self, text: str) -> Iterator[tuple[str, int]]:
        tokens = self.tokens(text)
        for begin in range(0, len(tokens), self.BLOCK):
            block = tokens[begin : begin + self.BLOCK]
            yield "".join(block), len(block)

    def render(self, messages: Sequence[dict]) -> list[str]:
        return ["\n".join(f"{message['role']}: {message.get('content', '')}" for message in messages)]

    def split(self, prompt: str) -> tuple[str, str]:
        """An answer begins behind the first line's end."""
        question, mark, said = prompt.partition("\n")
        return question + mark, said

    def answer(self, prompt: Sequence[str], seed: int | None, begin: int, end: int) -> str:
        text = "".join(answer_word(prompt[0], index) for index in range(begin, end))
        return text if begin else text.lstrip()


def answer_word(prompt: str, position: int) -> str:
    """The answer's token at ``position``."""
    return f" {WORDS[(crc32(prompt.encode()) + position) % len(WORDS)]}"


class Characters(SimTokenizer):
    """A token is four characters: what a trace without text can be told in.

    Prompts that share a beginning part where a line begins, or in a line after a multiple of ``PIECE`` tokens: a chain
    of long pieces takes little time. The break belongs to the line that it begins. The answer to a request with a seed
    is ``line(seed)``, so that whoever asks can repeat it in the next prompt without having waited for it.
    """

    CHARACTERS, PIECE = 4, 512

    def tokens(self, text: str) -> list[str]:
        return [text[begin : begin + self.CHARACTERS] for begin in range(0, len(text), self.CHARACTERS)]

    def ids(self, text: str) -> list[int]:
        """The four bytes of each token as one number: routers ask for those of whole prompts."""
        raw = text.encode("ascii", "replace")
        padded = raw + b" " * (-len(raw) % self.CHARACTERS)
        return np.frombuffer(padded, "<u4").tolist()

    def pieces(self, text: str) -> Iterator[tuple[str, int]]:
        step = self.CHARACTERS * self.PIECE
        for whole in _LINE.findall(text):
            for begin in range(0, len(whole), step):
                piece = whole[begin : begin + step]
                yield piece, -(-len(piece) // self.CHARACTERS)

    def render(self, messages: Sequence[dict]) -> list[str]:
        return [message.get("content") or "" for message in messages]

    def split(self, prompt: str) -> tuple[str, str]:
        return prompt, ""

    def answer(self, prompt: Sequence[str], seed: int | None, begin: int, end: int) -> str:
        return line(seed or 0, end * self.CHARACTERS)[begin * self.CHARACTERS :]


def line(number: int, length: int) -> str:
    """A line of ``length`` characters that only ``number`` has: its sixteen hexadecimal digits, mixed, repeated."""
    digits = f"{mix(number):016x}"
    return ("\n" + digits * (length // len(digits) + 1))[:length]


TOKENIZERS: dict[str, type[SimTokenizer]] = {"words": Words, "characters": Characters}
