"""Grammars are tried in a process that can be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backend.grammar import GrammarBusy, GrammarChecker, GrammarError, GrammarSpec
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
            "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"' for i in range(300)) + '\nr300 ::= "b"',
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


def chain(rules: int) -> GrammarSpec:
    """Seconds of work: twice as many ways with each rule."""
    text = "\n".join(f'r{number} ::= r{number + 1} r{number + 1} | "a"' for number in range(rules))
    return make_spec("ebnf", f'root ::= r0\n{text}\nr{rules} ::= "b"')


async def test_many_hostile_ones_at_once_cost_a_limited_time_each() -> None:
    """Counted in CPU time, since the machine may be busy: then some of them are told to come again."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    checker = GrammarChecker(cpu_seconds=0.1, checkers=1, wait_seconds=60)
    try:
        checks = [checker.check(chain(3000 + number)) for number in range(8)]
        answers = await asyncio.gather(*checks, checker.check(make_spec("regex", "harmless")), return_exceptions=True)
    finally:
        checker.close()
    assert all(isinstance(answer, GrammarError) for answer in answers[:8])
    assert all(isinstance(answer, GrammarBusy) or "than the 0.1 seconds" in str(answer) for answer in answers[:8])
    assert answers[8] is None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 8 * 0.1 * 1.5 + 4  # a process is started, too


async def test_who_waits_too_long_for_a_turn_is_told_to_come_again() -> None:
    checker = GrammarChecker(cpu_seconds=30, checkers=1, wait_seconds=0)
    try:
        await checker.check(make_spec("regex", "a"))
        first = asyncio.create_task(checker.check(chain(300)))
        same = asyncio.create_task(checker.check(chain(300)))
        for _ in range(4):  # both ask, the turn is taken
            await asyncio.sleep(0)
        with pytest.raises(GrammarBusy, match="try again"):
            await checker.check(make_spec("regex", "b"))
        for task in (first, same):  # one turn for both
            with pytest.raises(GrammarError):
                await task
        await checker.check(make_spec("regex", "b"))
    finally:
        checker.close()


async def test_a_process_that_is_gone_is_replaced() -> None:
    checker = GrammarChecker(cpu_seconds=0.1, checkers=1)
    try:
        others = set(multiprocessing.active_children())
        await checker.check(make_spec("regex", "a"))
        (process,) = [each for each in multiprocessing.active_children() if each not in others]
        process.kill()
        process.join()
        await checker.check(make_spec("regex", "b"))  # its child is there
        with pytest.raises(GrammarBusy):
            await checker.check(chain(3000))  # which nobody replaces when this ends it
        await checker.check(make_spec("regex", "c"))
    finally:
        checker.close()


async def test_a_child_that_is_killed_from_outside_shifts_no_verdicts() -> None:
    checker = GrammarChecker(cpu_seconds=30, checkers=1)
    try:
        others = set(multiprocessing.active_children())
        await checker.check(make_spec("regex", "first"))
        (nursery,) = [each for each in multiprocessing.active_children() if each not in others]
        os.kill(child_of(nursery.pid), signal.SIGKILL)
        for number in range(3):
            with suppress(GrammarBusy):  # where the news of its end comes behind the question
                await checker.check(make_spec("regex", f"good{number}"))
            with pytest.raises(GrammarError, match="unclosed"):
                await checker.check(make_spec("regex", f"(bad{number}"))
    finally:
        checker.close()


def child_of(parent: int | None) -> int:
    """Its only one, as Linux tells it."""
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text())
