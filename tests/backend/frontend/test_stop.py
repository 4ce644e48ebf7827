"""Stop strings: found whatever the cut, and no part of one ever leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.frontend.stop import StopMatcher

letters = st.text("ab", max_size=30)
stop_strings = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)


def first_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Slow and obvious: the first end at which any stop string ends; the longest of them."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            longest = max(hits, key=len)
            return text[: end - len(longest)], longest
    return text, None


def run(matcher: StopMatcher, chunks: list[str]) -> str:
    return "".join(matcher.push(chunk) for chunk in chunks) + matcher.flush()


@given(st.lists(st.text("ab", max_size=4), max_size=12), stop_strings)
def test_any_chunking_equals_the_whole_text(chunks: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    assert (run(matcher, chunks), matcher.matched) == first_stop("".join(chunks), stops)


@given(letters, stop_strings)
def test_what_is_out_is_never_taken_back(text: str, stops: list[str]) -> None:
    final, _ = first_stop(text, stops)
    matcher, out = StopMatcher(stops), ""
    for character in text:
        out += matcher.push(character)
        assert final.startswith(out)


@given(letters, stop_strings)
def test_nothing_is_held_back_that_cannot_start_a_stop_string(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    out = matcher.push(text)
    if matcher.matched is None:
        held = text[len(out) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize("keep", [False, True])
def test_the_stop_string_is_cut_off_unless_kept(keep: bool) -> None:
    matcher = StopMatcher(["END"], keep=keep)
    assert run(matcher, ["one E", "ND", " two"]) == ("one END" if keep else "one ")
    assert matcher.matched == "END"


def test_a_false_start_is_let_out() -> None:
    matcher = StopMatcher(["\n\nUser:"])
    assert [matcher.push("a\n"), matcher.push("\n"), matcher.push("b")] == ["a", "", "\n\nb"]


def test_a_stop_string_may_be_long() -> None:
    stop = "a" * 5000 + "b"
    matcher = StopMatcher([stop])
    out = "".join(matcher.push("a") for _ in range(20_000))
    assert len(out) == 20_000 - 5000
    assert matcher.push("bc") == ""
    assert matcher.matched == stop
