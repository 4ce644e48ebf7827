"""The model's vocabulary as llguidance wants it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llguidance import LLTokenizer

from backend.grammar.remembered import remembering

if TYPE_CHECKING:
    from backend.prompt.tokenizer import Tokenizer

_HIDDEN = "\uf8ff"  # of the private use area: no text is tokenised as a token of this name
# Of a JSON text: where so many characters may still come, all tokens of that length are allowed without a look. The
# numbers are measured: with a maxLength the masks take two thirds of what they take by the library's own (10 and 30).
_TEXT = r'[^"\\\x00-\x1F\x7F]'
_SLICES = [r"[\x20\x0A\x0D\x09]+", *(f"{_TEXT}{{1,{length}}}" for length in (7, 10, 16)), f"{_TEXT}+"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``size`` counts the model's logits; tokens beyond the tokenizer's own are never allowed."""

    tokenizer: LLTokenizer
    size: int
    control_tokens: Mapping[str, int] = field(default_factory=dict)  # text and id

    @classmethod
    def from_json(
        cls,
        tokenizer_json: str,
        *,
        size: int,
        eos_token_ids: Sequence[int],
        special_tokens: Collection[str] = (),
    ) -> Vocabulary:
        """From the text of a ``tokenizer.json``. Takes about a second for a large vocabulary: build it once.

        ``special_tokens`` are the texts of its control tokens. A text that only spells one is never taken for it.
        """
        form = json.loads(tokenizer_json)
        control_tokens = _hide(form, frozenset(special_tokens))
        tokenizer = LLTokenizer(json.dumps(form), n_vocab=size, eos_token=list(eos_token_ids), slices=[])
        return cls(remembering(tokenizer, _SLICES), size, control_tokens)

    @classmethod
    def of_bytes(cls) -> Vocabulary:
        """256 bytes and a few control tokens: enough to see whether a grammar compiles."""
        tokenizer = LLTokenizer("byte")
        return cls(tokenizer, tokenizer.vocab_size)


@dataclass(frozen=True, slots=True)
class VocabularyForm:
    """What a vocabulary is read from; other than that it can be sent to another process."""

    tokenizer_json: str
    size: int
    eos_token_ids: tuple[int, ...]
    special_tokens: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: int) -> VocabularyForm:
        """Of a model with ``size`` logits."""
        special = (tokenizer.id_to_token(token) for token in tokenizer.special_token_ids)
        return cls(
            tokenizer.to_json(),
            size,
            tuple(tokenizer.eos_token_ids),
            tuple(text for text in special if text is not None),
        )

    def read(self) -> Vocabulary:
        """Takes about a second for a large one."""
        return Vocabulary.from_json(
            self.tokenizer_json, size=self.size, eos_token_ids=self.eos_token_ids, special_tokens=self.special_tokens
        )


def _hide(form: dict[str, Any], special_tokens: frozenset[str]) -> dict[str, int]:
    """Give the control tokens of a ``tokenizer.json`` other names; returns their ids by the old ones."""
    found: dict[str, int] = {}
    vocabulary = form["model"].get("vocab")
    for token in form.get("added_tokens", ()):
        text = token["content"]
        if text not in special_tokens:
            continue
        found[text] = token["id"]
        token["content"] = f"{_HIDDEN}{token['id']}"
        if isinstance(vocabulary, dict) and text in vocabulary:
            vocabulary[token["content"]] = vocabulary.pop(text)
    return found
