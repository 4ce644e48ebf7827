"""Tokenizer: text to token ids and back, and what a chat template wants to know of the vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import tokenizers
from tokenizers import processors

from backend.prompt.byte_table import byte_table
from backend.prompt.errors import ModelError

NAMED_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """A model's tokenizer. Immutable after construction, so any number of threads may use it at once."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        special_tokens: Mapping[str, str],
        eos_token_ids: Iterable[int] = (),
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        """``special_tokens`` maps names such as ``bos_token`` to text; ``eos_token_ids`` are more ids that end answers.

        ``chat_template`` is a template's source, or several by name, or None when the model has none.
        """
        self._backend = backend
        self._special = {id: token.content for id, token in backend.get_added_tokens_decoder().items() if token.special}
        self.special_tokens = dict(special_tokens)
        self.chat_template = chat_template
        self.bos_token_id = self._named_id("bos_token")
        main_eos = self._named_id("eos_token")
        self.eos_token_ids = tuple(dict.fromkeys([*([] if main_eos is None else [main_eos]), *eos_token_ids]))

    @property
    def vocab_size(self) -> int:
        """Number of token ids, added tokens included. The model's embedding may be padded to more."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids of the control tokens, which ``skip_special_tokens`` leaves out."""
        return frozenset(self._special)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``; ``add_special_tokens`` adds what the model wants around a prompt (BOS, mostly)."""
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_pair(self, first: str, second: str) -> list[int]:
        """Token ids of two texts in a row, framed as the model wants a pair."""
        return self._backend.encode(first, second).ids

    def decode(
        self,
        token_ids: Sequence[int],
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """Text of ``token_ids``; bytes that are no whole character become U+FFFD.

        ``spaces_between_special_tokens=False`` writes special tokens exactly, without a space that the decoder would
        put beside them; it matters only for vocabularies without a byte-level decoder.
        """
        if skip_special_tokens or spaces_between_special_tokens:
            return self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)
        runs = groupby(token_ids, key=self._special.__contains__)
        return "".join(
            "".join(self._special[id] for id in run) if special else self._backend.decode(list(run))
            for special, run in runs
        )

    def byte_table(self, *, skip_special_tokens: bool) -> list[bytes] | None:
        """The bytes of each id, where decoding is joining them (see :mod:`backend.prompt.byte_table`); made anew."""
        return byte_table(self._backend, self.special_token_ids if skip_special_tokens else frozenset())

    def token_to_id(self, token: str) -> int | None:
        """Id of a token by its text as it stands in the vocabulary, or None."""
        return self._backend.token_to_id(token)

    def id_to_token(self, token_id: int) -> str | None:
        """A token's text as it stands in the vocabulary (byte-level escapes included), or None for an unknown id."""
        return self._backend.id_to_token(token_id)

    def to_json(self) -> str:
        """The vocabulary and its rules as the text of a ``tokenizer.json``."""
        return self._backend.to_str()

    def _named_id(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        if token is None:
            return None
        token_id = self._backend.token_to_id(token)
        if token_id is None:
            raise ModelError(f"the tokenizer names {token!r} as its {name}, but has no such token")
        return token_id


def frame_prompt(backend: tokenizers.Tokenizer, *, bos: str | None, eos: str | None) -> None:
    """Make ``add_special_tokens`` put ``bos`` before and ``eos`` after a prompt, each if given, and nothing else."""
    special = [(token, backend.token_to_id(token)) for token in dict.fromkeys((bos, eos)) if token is not None]
    template = [*([] if bos is None else [bos]), "$A", *([] if eos is None else [eos])]
    pair = [*template, *("$B:1" if piece == "$A" else piece for piece in template)]
    backend.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=special)
