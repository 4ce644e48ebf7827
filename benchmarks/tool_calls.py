"""How many of canitoolcall's recorded outputs our parsers read as they should: ``python -m benchmarks.tool_calls``.

Needs ``pip install canitoolcall==0.1.1``. Each output is parsed whole, in one piece, character by character and in
random pieces (which may cut a marker, harder than any tokenizer); a fixture passes when all of its checks do.
"soft" passes differ in whitespace around the text alone. Which parser reads which model is what ``auto`` would choose
from its chat template.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from canitoolcall.checks import case_status, run_checks
from canitoolcall.fixtures import Family, Fixture, load_families, load_fixtures
from canitoolcall.results import Observation, ParsedToolCall, ParseResult, StreamAccumulator

from backend.api.parsers import AnswerParser, Parsed, make_parser

# family, or family/variant: (reasoning parser, tool-call parser)
PARSERS: dict[str, tuple[str | None, str | None]] = {
    "deepseek": ("deepseek-r1", "deepseekv3"),
    "deepseek/deepseek-v32": ("deepseek-r1", "deepseekv32"),
    "deepseek/deepseek-v4": ("deepseek-r1", "deepseekv4"),
    "deepseek/deepseek-v41": ("deepseek-r1", "deepseekv4"),
    "gemma4": ("gemma4", "gemma4"),
    "glm": ("glm45", "glm45"),
    "gpt-oss": ("gpt-oss", "gpt-oss"),
    "kimi": ("kimi_k2", "kimi_k2"),
    "llama": (None, "llama3"),
    "llama/llama4-pythonic": (None, "pythonic"),
    "mistral": ("mistral", "mistral"),
    "mistral/v11-think-text": ("deepseek-r1", "mistral"),
    "qwen3-hermes": ("qwen3", "hermes"),
    "qwen3-xml": ("qwen3", "qwen3_coder"),
}
NOT_BUILT = {"kimi/kimi-k3-xtml"}  # formats newer than the parsers
RANDOM_SPLITS = 5


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--family", action="append", help="only this family (may be repeated)")
    arguments.add_argument("--failures", action="store_true", help="show what fails and why")
    options = arguments.parse_args()
    families = load_families()
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for fixture in load_fixtures(families=options.family):
        family = families[fixture.family]
        variant = _variant(fixture, family)
        if f"{fixture.family}/{variant}" in NOT_BUILT:
            table[fixture.family]["not built"] += 1
            continue
        status, reasons = _judge(fixture, family, variant)
        table[fixture.family][status] += 1
        if options.failures and status not in ("pass", "soft_pass"):
            print(f"{fixture.id}\n  {fixture.raw_output!r}\n  " + "\n  ".join(reasons))
    _show(table)


def _judge(fixture: Fixture, family: Family, variant: str) -> tuple[str, list[str]]:
    whole = _parse(_parser(fixture, family, variant), [fixture.raw_output], fixture.truncated)
    streams = {
        name: _parse(_parser(fixture, family, variant), pieces, fixture.truncated)
        for name, pieces in _splits(fixture.raw_output)
    }
    rows = run_checks(fixture, family, Observation(whole, streams))
    wrong = [f"{row.check} {row.strategy}: {row.detail}" for row in rows if row.status.value == "fail"]
    return case_status(rows).value, wrong[:4]


def _variant(fixture: Fixture, family: Family) -> str:
    return next((m.variant or "" for m in family.reference_models if m.repo in fixture.models), "")


def _parser(fixture: Fixture, family: Family, variant: str) -> AnswerParser:
    reasoning, tool_call = PARSERS.get(f"{fixture.family}/{variant}", PARSERS[fixture.family])
    prompt = fixture.generation_prompt
    if prompt is None:
        defaults = [m.default_generation_prompt for m in family.reference_models if m.repo in fixture.models]
        prompt = (defaults[0] if defaults else "") or ""
    return make_parser(reasoning, tool_call, tools=fixture.tools, prompt_end=prompt)


def _splits(text: str) -> Iterator[tuple[str, list[str]]]:
    """Under the names of the suite's own strategies, but between any two characters."""
    yield "one", [text]
    yield "token", list(text)
    for seed in range(1, RANDOM_SPLITS + 1):
        chance = random.Random(seed)
        pieces, position = [], 0
        while position < len(text):
            size = chance.randint(1, 8)
            pieces.append(text[position : position + size])
            position += size
        yield f"rand:{seed}:8", pieces


def _parse(parser: AnswerParser, pieces: Sequence[str], truncated: bool) -> ParseResult:
    accumulator = StreamAccumulator()
    calls: list[ParsedToolCall] = []
    for parsed in [*map(parser.push, pieces), parser.finish(truncated)]:
        _add(accumulator, parsed)
        calls += [ParsedToolCall(call.name, call.arguments) for call in parsed.calls]
    text = accumulator.result()
    return ParseResult(text.content, text.reasoning_content, tuple(calls))


def _add(accumulator: StreamAccumulator, parsed: Parsed) -> None:
    accumulator.add_content(parsed.content)
    accumulator.add_reasoning(parsed.reasoning)


def _show(table: dict[str, Counter[str]]) -> None:
    print(f"{'family':14} {'fixtures':>8} {'pass':>6} {'soft':>6} {'fail':>6} {'not built':>10} {'rate':>7}")
    for name, counts in sorted(table.items()):
        built = sum(counts.values()) - counts["not built"]
        good = counts["pass"] + counts["soft_pass"]
        print(
            f"{name:14} {sum(counts.values()):8} {counts['pass']:6} {counts['soft_pass']:6} {built - good:6} "
            f"{counts['not built']:10} {good / max(built, 1):7.1%}"
        )


if __name__ == "__main__":
    main()
