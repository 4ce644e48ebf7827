"""Grammars are tried in a process that can be killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from backend.grammar import GrammarChecker, GrammarError
from backend.grammar.spec import make_spec

DEEP: dict = {"type": "object"}
for _ in range(300):
    DEEP = {"type": "object", "properties": {"a": DEEP}, "required": ["a"]}
BRANCHES = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(8)]} for i in range(8)]


@pytest.fixture(scope="module")
def checker() -> Iterator[GrammarChecker]:
    checker = GrammarChecker(seconds=30, checkers=1)  # the machine may be busy; limits of work decide here
    yield checker
    checker.close()


async def test_good_grammars(checker: GrammarChecker) -> None:
    for kind, value in (("json_schema", {"type": "object"}), ("regex", "a+"), ("ebnf", 'root ::= "a"')):
        await checker.check(make_spec(kind, value))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(a"),
        ("json_schema", DEEP),
        ("json_schema", {"allOf": BRANCHES}),
        ("ebnf", "root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
        ("json_schema", {"not": {}}),
    ],
)
async def test_bad_and_hostile_grammars_are_refused(checker: GrammarChecker, kind: str, value: object) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(GrammarError):
            await checker.check(make_spec(kind, value))
    await checker.check(make_spec("regex", "still alive"))


async def test_what_takes_too_long_is_stopped_and_others_go_on() -> None:
    checker = GrammarChecker(seconds=0.0, checkers=1)
    try:
        hostile = make_spec("json_schema", {"enum": [f"value {number}" for number in range(15_000)]})
        ticks = 0
        check = asyncio.create_task(checker.check(hostile))
        while not check.done():
            ticks += 1
            await asyncio.sleep(0.01)
        with pytest.raises(GrammarError, match="longer than 0 seconds"):
            check.result()
        assert ticks > 1
    finally:
        checker.close()
