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
    checker = GrammarChecker(cpu_seconds=30, checkers=1)  # limits of work decide here, not of time
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
        ("json_schema", {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ("json_schema", {"type": "integer", "multipleOf": 999_999_937}),
        ("json_schema", {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}}),
        ("regex", "(" * 2000 + "a" + ")" * 2000),
        ("ebnf", "root ::= root"),
        (
            "ebnf",
            "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"' for i in range(1000)) + '\nr1000 ::= "b"',
        ),
    ],
)
async def test_bad_and_hostile_grammars_are_refused(checker: GrammarChecker, kind: str, value: object) -> None:
    for _ in range(2):  # the second time from memory
        with pytest.raises(GrammarError):
            await checker.check(make_spec(kind, value))
    await checker.check(make_spec("regex", "still alive"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "(a+)+b"),
        ("regex", "((a{0,100}){0,100}){0,100}"),
        ("regex", "[ab]*a[ab]{200}"),
        ("json_schema", {"type": "string", "maxLength": 10**9}),
        ("json_schema", {"type": "array", "items": {"type": "integer"}, "minItems": 10**6}),
        ("json_schema", {"enum": [f"value {number}" for number in range(10_000)]}),
        ("ebnf", 'root ::= root root root | "a" | ""'),
    ],
)
async def test_what_only_looks_hostile_is_taken(checker: GrammarChecker, kind: str, value: object) -> None:
    await checker.check(make_spec(kind, value))


async def test_what_takes_too_long_is_stopped_and_others_go_on() -> None:
    checker = GrammarChecker(cpu_seconds=0.005, checkers=1)
    try:
        hostile = make_spec("json_schema", {"enum": [f"value {number}" for number in range(15_000)]})
        ticks = 0
        check = asyncio.create_task(checker.check(hostile))
        while not check.done():
            ticks += 1
            await asyncio.sleep(0.01)
        with pytest.raises(GrammarError, match="longer to compile than"):
            check.result()
        assert ticks > 1
        assert (checker.figures.timed_out, checker.figures.refused) == (1, 0)
    finally:
        checker.close()


async def test_what_became_of_each_is_counted() -> None:
    checker = GrammarChecker(cpu_seconds=30, checkers=1)
    try:
        for text in ("a+", "a+", "a+", "b+"):
            await checker.check(make_spec("regex", text))
        for _ in range(2):
            with pytest.raises(GrammarError):
                await checker.check(make_spec("regex", "("))
    finally:
        checker.close()
    figures = checker.figures
    assert (figures.total, figures.known, figures.refused, figures.timed_out) == (6, 3, 2, 0)
    assert len(figures.seconds) == 3
    assert min(figures.seconds) > 0
