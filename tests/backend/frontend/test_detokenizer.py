"""Incremental detokenising: any cut of any text gives the text, and broken bytes stay cheap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.frontend.detokenizer import REPLACEMENT, WINDOW, IncrementalDetokenizer


class Pieces:
    """A vocabulary of byte strings; token i is ``pieces[i]``. Counts how many tokens were decoded in all."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.decoded = 0

    def __call__(self, ids: list[int]) -> str:
        self.decoded += len(ids)
        return b"".join(self.pieces[token] for token in ids).decode(errors="replace")


@st.composite
def cut_bytes(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[bytes]:
    """Bytes cut into tokens at any places, also inside characters."""
    data = draw(source)
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=len(data))))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


texts = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("aé中文😀👩‍👧🏽 ")), max_size=80)


@given(cut_bytes(texts.map(str.encode)), st.data())
def test_any_cut_of_any_text_gives_the_text(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces).decode()
    detokenizer = IncrementalDetokenizer(Pieces(pieces))
    given_out, done = "", 0
    while done < len(pieces):
        step = data.draw(st.integers(1, 5), label="tokens in this step")
        given_out += detokenizer.push(range(done, min(done + step, len(pieces))))
        done += step
        assert whole.startswith(given_out)
    assert given_out + detokenizer.flush() == whole


@given(cut_bytes(texts.filter(lambda text: REPLACEMENT not in text).map(str.encode)))
def test_no_replacement_character_for_an_unfinished_one(pieces: list[bytes]) -> None:
    detokenizer = IncrementalDetokenizer(Pieces(pieces))
    assert REPLACEMENT not in "".join(detokenizer.push([token]) for token in range(len(pieces)))


@given(st.lists(st.binary(min_size=1, max_size=4), max_size=120))
def test_broken_bytes_equal_one_decode(pieces: list[bytes]) -> None:
    detokenizer = IncrementalDetokenizer(Pieces(pieces))
    streamed = "".join(detokenizer.push([token]) for token in range(len(pieces))) + detokenizer.flush()
    assert streamed == b"".join(pieces).decode(errors="replace")


@pytest.mark.parametrize("piece", [b"\xff", b"\xf0", b"\x80", b"a\xe4\xb8", b"\xad\xe4\xb8", b"ab"])
def test_work_grows_with_the_length_and_not_with_its_square(piece: bytes) -> None:
    count = 2000
    decode = Pieces([piece] * count)
    detokenizer = IncrementalDetokenizer(decode)
    for token in range(count):
        detokenizer.push([token])
    assert decode.decoded <= 4 * WINDOW * count


def test_the_prompt_is_context_and_is_not_given_out() -> None:
    def decode(ids: list[int]) -> str:  # like SentencePiece: the space before the first word is lost
        return "".join([" the", " cat", " sat"][token] for token in ids).removeprefix(" ")

    detokenizer = IncrementalDetokenizer(decode, context=[0])
    assert detokenizer.push([1]) + detokenizer.push([2]) == " cat sat"


def test_a_prompt_that_ends_inside_a_character_is_no_context() -> None:
    detokenizer = IncrementalDetokenizer(Pieces([b"caf\xc3", b"\xa9", b"x"]), context=[0])
    assert (detokenizer.push([1]) + detokenizer.push([2]) + detokenizer.flush()).endswith("x")


def test_tokens_without_text_do_not_push_the_context_out() -> None:
    def decode(ids: list[int]) -> str:
        return "".join(["", " the", " cat"][token] for token in ids).removeprefix(" ")

    detokenizer = IncrementalDetokenizer(decode)
    parts = [detokenizer.push([1]), *(detokenizer.push([0]) for _ in range(50)), detokenizer.push([2])]
    assert "".join(parts) == "the cat"
