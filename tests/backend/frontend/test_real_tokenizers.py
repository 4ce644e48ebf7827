"""Streaming with real tokenizers: what is given out piece by piece is what one decode of all tokens gives."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from backend.frontend.detokenizer import CONTEXT, REPLACEMENT, WINDOW, IncrementalDetokenizer

SPACE = "▁"
WORDS = ["Hello", "the", "cat", "नम", "世界"]
SAMPLES = [
    "Hello the cat",
    "世界",
    "你好。世界",
    "नमस्ते दुनिया",
    "日本語のテキスト",
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🇺🇸",
    "😀😀",
    "café",
    "  ",
    "\n\n",
    "x",
]


def byte_level() -> Tokenizer:
    """GPT-2's kind: tokens are any pieces of the bytes of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SAMPLES * 3, trainer)
    return tokenizer


def byte_fallback(decoder: decoders.Decoder) -> Tokenizer:
    """Llama 2's kind: words and characters, and single bytes for those that are not in the vocabulary."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = []
    for word in [SPACE * 2, *(mark + word for word in WORDS for mark in ("", SPACE))]:
        for end in range(1, len(word) + 1):
            for piece in (word[:end], word[end - 1]):
                vocabulary.setdefault(piece, len(vocabulary))
            if end > 1 and (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    return tokenizer


@functools.cache
def made(kind: str) -> Tokenizer:
    if kind == "byte level":
        return byte_level()
    if kind == "metaspace":
        return byte_fallback(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]))
    parts = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return byte_fallback(decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if kind == "strip" else [])]))


KINDS = ["byte level", "fuse", "strip", "metaspace"]
texts = st.lists(st.sampled_from([*SAMPLES, " ", "a", ".", "</s>", "中", "😀", "\U0001f1e9"]), max_size=12).map("".join)


def stream(kind: str, prompt: list[int], output: list[int], data: st.DataObject | None = None) -> list[str]:
    """The pieces given out for ``output``, one token or a few at a time."""
    detokenizer = IncrementalDetokenizer(made(kind).decode, prompt[-CONTEXT:])
    parts, done = [], 0
    while done < len(output):
        step = data.draw(st.integers(1, 9), label="tokens in this step") if data else 1
        parts.append(detokenizer.push(output[done : done + step]))
        done += step
    return [*parts, detokenizer.flush()]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=texts, data=st.data())
def test_any_cut_of_a_valid_text_gives_the_text(kind: str, text: str, data: st.DataObject) -> None:
    tokenizer = made(kind)
    ids = tokenizer.encode(text).ids
    whole = tokenizer.decode(ids)
    cut = data.draw(st.integers(0, len(ids)), label="tokens of the prompt")
    before = tokenizer.decode(ids[:cut])
    if before.endswith(REPLACEMENT):  # a prompt that ends inside a character
        return
    for pieces in (stream(kind, ids[:cut], ids[cut:]), stream(kind, ids[:cut], ids[cut:], data)):
        assert before + "".join(pieces) == whole
        assert REPLACEMENT not in "".join(pieces)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["😀😀😀😀😀", "中文字符你好世界", "नमस्ते दुनिया", "👩‍👩‍👧‍👦", "a 中  b"])
def test_a_character_comes_with_its_last_token(kind: str, text: str) -> None:
    tokenizer = made(kind)
    prompt, ids = tokenizer.encode("Hello").ids, tokenizer.encode(text).ids
    pieces = stream(kind, prompt, ids)
    assert pieces[-1] == ""
    assert "".join(pieces).strip() == text


@pytest.mark.parametrize("kind", KINDS[1:])
@given(st.lists(st.sampled_from([*"😀中éa".encode(), 0xFF, 0xF0, 0x80, -1]), max_size=60))
def test_broken_bytes_hold_nothing_back_for_long(kind: str, data: list[int]) -> None:
    tokenizer = made(kind)
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>" if byte >= 0 else SPACE + "cat") for byte in data]
    detokenizer = IncrementalDetokenizer(tokenizer.decode, tokenizer.encode("Hello").ids)
    given_out = ""
    for count, token in enumerate(ids, 1):
        given_out += detokenizer.push([token])
        assert len(given_out) <= 4 * count
    cats = sum(byte < 0 for byte in data)
    assert (given_out + detokenizer.flush() + ".").count(" cat") == cats


def test_a_broken_run_does_not_swallow_what_was_whole() -> None:
    tokenizer = made("strip")
    ids = [
        tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in ["😀".encode(), b"\xff\xff\xff\xff\xff"] for byte in byte
    ]
    ids += tokenizer.encode("cat").ids
    assert "".join(stream("strip", tokenizer.encode("Hello").ids, ids)) == "😀" + REPLACEMENT * 5 + " cat"


@pytest.mark.parametrize("text", ["😀" * 600, "\xff" * 900])
def test_work_grows_with_the_length_of_a_run_of_bytes(text: str) -> None:
    tokenizer = made("strip")
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in text.encode("utf-8" if text[0] == "😀" else "latin-1")]
    decoded = 0

    def decode(tokens: list[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return tokenizer.decode(tokens)

    detokenizer = IncrementalDetokenizer(decode)
    for token in ids:
        detokenizer.push([token])
    assert decoded <= 5 * WINDOW * len(ids)
