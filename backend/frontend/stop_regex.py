"""Stop expressions (SGLang's ``stop_regex``) in a text that arrives token by token.

As in SGLang an expression is looked for after each token, so ``$`` is the end of what has been said. What may still
become a match is held back (the ``regex`` package tells partial matches), up to a window.

Expressions come from clients: what would grow large when it is compiled is refused, and searches have limits of time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import regex

MAX_BYTES = 256
WINDOW = 1024  # characters that are held back at most; a match that began before them begins where they do
CONTEXT = 64  # characters before them that an expression may look back at
MAX_EXPANDED = 2000  # items of an expression whose repetitions are written out, as compiling it does
SEARCH_SECONDS = 0.01  # of CPU time, for one search
TOKEN_SECONDS = 0.002  # that the searches after a token may take in the long run: all answers share one event loop
SAVED_SECONDS = 0.1  # of those, at most, for a while that takes longer

_ITEM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)[^{}]*\}|.", re.DOTALL)
_COMMENTS = re.compile(r"\(\?#|\(\?[a-zA-Z0-9-]*x")  # could hide parentheses from the count below


class StopRegexError(ValueError):
    """An expression that cannot be read, or that takes too long; one line for the client."""


def compile_stop_regex(text: str) -> regex.Pattern[str]:
    """Raises StopRegexError."""
    if not 0 < len(text.encode(errors="surrogatepass")) <= MAX_BYTES:
        raise StopRegexError(f"must have between 1 and {MAX_BYTES} bytes, got {len(text)} characters")
    if _COMMENTS.search(text):
        raise StopRegexError(f"may have no comments (and no flag x), got {text!r}")
    if _expanded(text) > MAX_EXPANDED:
        raise StopRegexError(f"repeats too much: {text!r} stands for more than {MAX_EXPANDED} items")
    try:
        return regex.compile(text)
    except (regex.error, ValueError, RecursionError) as error:
        raise StopRegexError(f"cannot be read: {error}, got {text!r}") from None


def _expanded(text: str) -> int:
    """Items of an expression in which each repetition is written out as often as it must occur."""
    groups, last = [0], 0
    for item in _ITEM.finditer(text):
        if item[0] == "(":
            groups.append(0)
        elif item[0] == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif item[1] is not None or item[0] == "+":  # a repetition of what is before it
            times = 2 if item[0] == "+" else max(int(item[1] or 1), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            groups[-1] += 1
    return sum(groups)


class RegexMatcher:
    """Finds the first expression that matches after a token; lets out only what cannot be part of a match."""

    def __init__(
        self,
        patterns: Sequence[regex.Pattern[str]],
        keep: bool = False,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._patterns = patterns
        self._clock = clock
        self._left = SAVED_SECONDS  # for searches
        self._keep = keep  # leave the match in the text
        self._text = ""  # the end of what was let out, and what is held
        self._out = 0  # characters of it that were let out
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """The part of the text that is certain now; ``text`` is one token's. After a match nothing comes any more.

        Raises StopRegexError when an expression, or all of them for many tokens, take too long.
        """
        if self.matched is not None or not text:
            return ""
        self._left = min(self._left + TOKEN_SECONDS, SAVED_SECONDS)
        self._text += text
        hold = len(self._text)
        for pattern in self._patterns:
            found = self._search(pattern)
            if found is not None:
                self.matched = pattern.pattern
                return self._let_out(max(found.end() if self._keep else found.start(), self._out))
            partial = self._search(pattern, partial=True)
            hold = hold if partial is None else min(hold, partial.start())
        return self._let_out(max(hold, len(self._text) - WINDOW))

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        return "" if self.matched is not None else self._let_out(len(self._text))

    def _search(self, pattern: regex.Pattern[str], partial: bool = False) -> regex.Match[str] | None:
        started = self._clock()
        try:
            if self._left <= 0:
                raise TimeoutError
            return pattern.search(self._text, self._out, partial=partial, timeout=min(SEARCH_SECONDS, self._left))
        except TimeoutError:
            raise StopRegexError(f"takes too long to look for, got {pattern.pattern!r}") from None
        finally:
            self._left -= self._clock() - started

    def _let_out(self, end: int) -> str:
        certain = self._text[self._out : end]
        kept = max(end - CONTEXT, 0)
        self._text, self._out = self._text[kept:], end - kept
        return certain
