"""The short way of byte-level vocabularies says what the tokenizer's own decoder says, wherever a stream is cut."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders

from backend.frontend.byte_detokenizer import ByteDetokenizer
from backend.prompt import load_tokenizer, resolve_model
from backend.prompt.tokenizer import Tokenizer
from tests.backend.frontend.test_real_tokenizers import byte_fallback, byte_level


@functools.cache
def small():
    backend = byte_level()
    backend.add_special_tokens([AddedToken("<|end|>", special=True)])
    backend.add_tokens([AddedToken("a b", special=False), AddedToken("<｜é｜>", special=False)])
    return Tokenizer(backend, special_tokens={})


@functools.cache
def default():
    return load_tokenizer(resolve_model(None).path)


def streamed(tokenizer, ids, cut, skip):
    detokenizer = ByteDetokenizer(tokenizer.byte_table(skip_special_tokens=skip))
    parts = [detokenizer.push(ids[i : i + cut]) for i in range(0, len(ids), cut)]
    return "".join(parts) + detokenizer.flush()


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([small, default]), st.integers(1, 4), st.booleans())
def test_any_ids_in_any_pieces_give_the_decoders_text(data, tokenizer, cut, skip):
    tokenizer = tokenizer()
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=40))
    assert streamed(tokenizer, ids, cut, skip) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("text", ["Hello the cat", "日本語のテキスト", "👩‍👩‍👧‍👦 a b <｜é｜>", "\n\n  x"])
def test_a_character_comes_out_whole(text):
    for tokenizer in (small(), default()):
        detokenizer = ByteDetokenizer(tokenizer.byte_table(skip_special_tokens=True))
        parts = [detokenizer.push([id]) for id in tokenizer.encode(text)]
        assert "".join(parts) == text
        assert "\ufffd" not in "".join(parts)


def test_other_decoders_have_no_table():
    tokenizer = Tokenizer(
        byte_fallback(decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])), special_tokens={}
    )
    assert tokenizer.byte_table(skip_special_tokens=True) is None
