"""Stop expressions: found after the token that completes a match, nothing of a match leaves, no expression hangs."""

from __future__ import annotations

import itertools

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from backend.frontend.stop import FirstOf, StopMatcher
from backend.frontend.stop_regex import CONTEXT, WINDOW, RegexMatcher, StopRegexError, compile_stop_regex

EXPRESSIONS = ["ab", "a|ba", "a+b", "b{2,3}", "a$", r"\bb", "^aa", "(?<=b)a.b", "(a|bb)+ ", "a.*b", "b(?=a)"]
tokens = st.lists(st.text("ab ", max_size=4), max_size=12)
expressions = st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3)


def matcher(*texts: str, keep: bool = False) -> RegexMatcher:
    return RegexMatcher([compile_stop_regex(text) for text in texts], keep)


def first_match(tokens: list[str], texts: list[str], keep: bool) -> tuple[str, str | None]:
    """Slow and obvious: the whole text is searched after each token."""
    whole = ""
    for token in tokens:
        whole += token
        for text in texts if token else []:
            found = regex.search(text, whole)
            if found:
                return whole[: found.end() if keep else found.start()], text
    return whole, None


@given(tokens, expressions, st.booleans())
def test_an_answer_ends_as_if_the_whole_text_were_searched(tokens: list[str], texts: list[str], keep: bool) -> None:
    stops, out = matcher(*texts, keep=keep), ""
    final, matched = first_match(tokens, texts, keep)
    for token in tokens:
        out += stops.push(token)
        assert final.startswith(out)  # what is out is never taken back
    assert (out + stops.flush(), stops.matched) == (final, matched)


@given(tokens, expressions, st.lists(st.text("ab ", min_size=1, max_size=3), min_size=1, max_size=2))
def test_beside_stop_strings_the_first_of_both_ends_the_text(
    tokens: list[str], texts: list[str], strings: list[str]
) -> None:
    both, out = FirstOf([StopMatcher(strings), matcher(*texts)]), ""
    alone: list[StopMatcher | RegexMatcher] = [StopMatcher(strings), matcher(*texts)]
    ends: list[str] = ["", ""]
    for token in tokens:
        out += both.push(token)
        ends = [end + stop.push(token) for end, stop in zip(ends, alone, strict=True)]
        if any(stop.matched for stop in alone):
            break
    else:
        ends = [end + stop.flush() for end, stop in zip(ends, alone, strict=True)]
    first = next((number for number, stop in enumerate(alone) if stop.matched), 0)
    assert (out + both.flush(), both.matched) == (ends[first], alone[first].matched)


def test_a_sentence() -> None:
    stops = matcher(r"[.!?]\s*$")
    assert [stops.push(token) for token in ("It", " costs", " 3", ".5 now", " ", "ok.", " More")] == [
        *("It", " costs", " 3", ".5 now", " ", "ok", "")
    ]
    assert stops.matched == r"[.!?]\s*$"


def test_no_more_than_a_window_is_held_back() -> None:
    stops, out = matcher("a.*END"), ""
    for _ in range(3 * WINDOW // 64):
        out += stops.push("a" * 64)
    assert len(out) == 2 * WINDOW
    assert out + stops.push("END") + stops.flush() == out
    assert matcher("^b").push("a" * (WINDOW + 2 * CONTEXT) + "b")  # the beginning of a window is not that of the text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(a", "cannot be read"),
        ("a" * 257, "256 bytes"),
        ("", "256 bytes"),
        ("(?:" * 30 + "a" + "){2}" * 30, "repeats too much"),
        ("(?:(?:a){1000}){1000}", "repeats too much"),
        ("(" * 20 + "a" + ")+" * 20, "repeats too much"),
        (r"(?x)(a #(\n){1000}", "comments"),
        ("(?#()a", "comments"),
    ],
)
def test_bad_and_hostile_expressions_are_refused(text: str, words: str) -> None:
    with pytest.raises(StopRegexError, match=words):
        compile_stop_regex(text)


@pytest.mark.parametrize("text", ["a{500}b", r"\{1000\}[{9}]{3}", "(?:ab){1,100000}c", "[(]{9}[)]", "[]a]{3}"])
def test_long_repetitions_are_taken(text: str) -> None:
    compile_stop_regex(text)


def test_a_search_that_takes_too_long_is_given_up() -> None:
    stops = matcher("(a|aa)+c")
    with pytest.raises(StopRegexError, match="too long"):
        stops.push("a" * 200)  # without a limit: for ever


def test_searches_that_together_take_too_long_end_the_answer() -> None:
    """Each search takes a millisecond: one expression, looked for twice a token, may do so for ever, three may not."""
    clock = itertools.count(0.0, 0.001)
    one, three = (RegexMatcher([compile_stop_regex("x+y")] * n, clock=lambda: next(clock)) for n in (1, 3))
    assert [one.push("a") for _ in range(500)] == ["a"] * 500
    assert [three.push("a") for _ in range(20)] == ["a"] * 20
    with pytest.raises(StopRegexError, match="takes too long"):
        [three.push("a") for _ in range(10)]
