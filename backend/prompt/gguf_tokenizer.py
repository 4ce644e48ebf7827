"""The tokenizer inside a GGUF file, built from the metadata under ``tokenizer.*``: byte-level BPE or SentencePiece."""

from __future__ import annotations

from typing import Any

import tokenizers
from gguf import TokenType
from tokenizers import AddedToken, decoders, models

from backend.prompt.errors import ModelError
from backend.prompt.files import id_list
from backend.prompt.gguf_file import GGUFFile
from backend.prompt.pretokenizers import PreTokenizer, pre_tokenizer
from backend.prompt.sentencepiece import sentencepiece
from backend.prompt.tokenizer import Tokenizer, frame_prompt

_KEY = "tokenizer.ggml."
_NAMED_IDS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # the format's own spelling
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
# Files often name one EOS only; a control token with one of these texts ends a turn or a document all the same.
_END_TOKENS = frozenset(
    ["<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end_of_turn|>", "<|endoftext|>", "<|end_of_text|>"]
)


def read_gguf_tokenizer(file: GGUFFile) -> Tokenizer:
    """Build the tokenizer of ``file``. Raises ModelError for a kind that is not known here."""
    metadata = file.metadata
    kind = metadata.get(f"{_KEY}model")
    if kind not in ("gpt2", "llama"):
        raise ModelError(
            f"{file.path}: GGUF tokenizer model {kind!r} is not supported, only 'gpt2' (byte-level BPE) and 'llama' "
            "(SentencePiece); use the model's safetensors folder"
        )
    tokens: list[str] = _required(file, "tokens")
    types: list[int] = metadata.get(f"{_KEY}token_type", [TokenType.NORMAL] * len(tokens))
    if len(types) != len(tokens):
        raise ModelError(f"{file.path} has {len(tokens)} tokens, but {len(types)} token types")
    special = {
        name: _token(file, tokens, metadata[_KEY + key]) for name, key in _NAMED_IDS.items() if _KEY + key in metadata
    }
    if kind == "llama":
        backend, add_bos = _sentencepiece(file, tokens, types, special.get("unk_token")), True
    else:
        rule = pre_tokenizer(metadata.get(f"{_KEY}pre", "default"))
        backend = _bpe(tokens, _required(file, "merges"), rule, bool(metadata.get(f"{_KEY}add_space_prefix", False)))
        backend.add_tokens([_added(token, type) for token, type in zip(tokens, types, strict=True) if _is_added(type)])
        add_bos = rule.add_bos
    frame_prompt(
        backend,
        bos=special.get("bos_token") if metadata.get(f"{_KEY}add_bos_token", add_bos) else None,
        eos=special.get("eos_token") if metadata.get(f"{_KEY}add_eos_token", False) else None,
    )
    return Tokenizer(
        backend,
        special_tokens=special,
        eos_token_ids=end_token_ids(metadata),
        chat_template=_chat_template(metadata),
    )


def _sentencepiece(file: GGUFFile, tokens: list[str], types: list[int], unknown: str | None) -> tokenizers.Tokenizer:
    scores: list[float] = _required(file, "scores")
    if len(scores) != len(tokens):
        raise ModelError(f"{file.path} has {len(tokens)} tokens, but {len(scores)} scores")
    prefix = bool(file.metadata.get(f"{_KEY}add_space_prefix", True))
    joined = [type in (TokenType.NORMAL, TokenType.USER_DEFINED) for type in types]
    backend = sentencepiece(tokens, scores, joined, unknown=unknown, space_prefix=prefix)
    # Tokens of the user's are looked for in the text as the pieces have it, unless that puts a space before each.
    backend.add_tokens(
        [
            _added(token, type, normalized=not prefix)
            for token, type in zip(tokens, types, strict=True)
            if _is_added(type)
        ]
    )
    return backend


def _bpe(tokens: list[str], merges: list[str], rule: PreTokenizer, add_prefix_space: bool) -> tokenizers.Tokenizer:
    pairs = [_merge_pair(merge) for merge in merges]
    vocab = {token: id for id, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab, pairs, ignore_merges=rule.ignore_merges)
    except Exception as error:  # the library raises bare Exception, for merges of unknown tokens for one
        raise ModelError(f"the GGUF file's tokens and merges do not fit together: {error}") from error
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = rule.build(add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    return backend


def _merge_pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _is_added(token_type: int) -> bool:
    return token_type in (TokenType.CONTROL, TokenType.USER_DEFINED)


def _added(token: str, token_type: int, *, normalized: bool = False) -> AddedToken:
    """``normalized`` is for tokens of the user's; control tokens are looked for in the text as it comes."""
    special = token_type == TokenType.CONTROL
    return AddedToken(token, special=special, normalized=normalized and not special)


def end_token_ids(metadata: dict[str, Any]) -> list[int]:
    """Ids that end an answer: those the metadata names, then control tokens known by their text."""
    named = [id for key in ("eos", "eot", "eom") for id in id_list(metadata.get(f"{_KEY}{key}_token_id"))]
    tokens: list[str] = metadata.get(f"{_KEY}tokens", [])
    types: list[int] = metadata.get(f"{_KEY}token_type", [])
    by_text = [id for id, type in enumerate(types) if type == TokenType.CONTROL and tokens[id] in _END_TOKENS]
    return list(dict.fromkeys([*named, *by_text]))


def _chat_template(metadata: dict[str, Any]) -> str | dict[str, str] | None:
    default: str | None = metadata.get("tokenizer.chat_template")
    names: list[str] = metadata.get("tokenizer.chat_templates", [])
    if not names:
        return default
    named = {name: metadata[f"tokenizer.chat_template.{name}"] for name in names}
    return named if default is None else {"default": default, **named}


def _required(file: GGUFFile, key: str) -> Any:
    try:
        return file.metadata[_KEY + key]
    except KeyError:
        raise ModelError(f"{file.path} has no {_KEY + key} in its metadata, so no tokenizer can be built") from None


def _token(file: GGUFFile, tokens: list[str], token_id: int) -> str:
    if not 0 <= token_id < len(tokens):
        raise ModelError(f"{file.path} names the special token {token_id}, but has {len(tokens)} tokens")
    return tokens[token_id]
