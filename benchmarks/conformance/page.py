"""docs/conformance.md: a row for each client, suite and target, then what failed and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.conformance.outcome import Outcome

HEAD = """# Conformance

Other people's clients against our server with the default model on the CPU, and once more through the router:
`make conformance` (`DATA=DIR` takes HellaSwag and GSM8K from `hellaswag*.jsonl` and `gsm8k*.jsonl` there, instead of a
few rows of our own). It writes this page. Clients that need more than we do run in environments of their own, each with
a limit of time. SGLang's and vLLM's wheels are installed without their dependencies, beside this project's torch.
Two suites run at a time, each against servers of its own (`ARGS='--lanes 1'` for one).
A run of some suites (`ARGS='--only NAME'`) leaves the other rows as they were. Seconds are wall
time and depend on what else the machine does.
"""

# What is known of cases that fail, by a part of their names.
WHY = {
    "test_regex_generate_custom_log_format": "the expression lets a text grow without end, which this model does",
    "test_count_tokens_with_system": "this model's template has a system text of its own, longer than the test's",
    "structured_by_tool": "sometimes this model fills its tokens before the call is complete, which is then not sent",
    "test_long_prompt": "8,000 tokens within 120 seconds, on two cores with much else to do",
    "SpecPenaltyKit": "a test of speculation, which is not there yet",
    "SpecGrammarKit": "a test of speculation, which is not there yet",
}


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield "| client | suite | version | against | cases | passed | failed | skipped | seconds | run |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for each in outcomes:
        counts = " | ".join(str(each.count(state)) for state in ("passed", "failed", "skipped"))
        row = f"{each.client} | {each.suite} | {each.version} | {each.target} | {len(each.cases)}"
        yield f"| {row} | {counts} | {each.seconds:.0f} | {each.when} |"


def page(outcomes: Sequence[Outcome], whole: float | None = None) -> str:
    """The whole page; ``whole``: seconds of a run of everything."""
    total = sum(each.seconds for each in outcomes)
    questions = "".join(f" Questions: {each.questions}." for each in outcomes if each.questions)
    took = "" if whole is None else f" The last run was of everything and took {whole:.0f}, two suites at a time."
    lines = [
        HEAD,
        *table(outcomes),
        "",
        f"{total:.0f} seconds of all suites together, without installing.{took}{questions}",
        "",
    ]
    lines += _section("What failed", list(_reasons(outcomes, "failed")) or ["Nothing."])
    lines += _section("What was skipped", list(_reasons(outcomes, "skipped")) or ["Nothing."])
    notes = [f"- {each.client}, {each.target}: {note}" for each in outcomes for note in each.notes]
    lines += _section("What clients said", notes)
    return "\n".join(lines)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _reasons(outcomes: Sequence[Outcome], state: str) -> Iterator[str]:
    for each in outcomes:
        if each.trouble and state == "failed":
            yield f"- {each.client}, {each.target}: {each.trouble}"
        for case in each.cases:
            if case.state == state:
                said = " ".join(case.reason.split())
                yield f"- {each.client}, {each.target}, `{case.name}`: {said}{_why(case.name)}"


def _why(case: str) -> str:
    return next((f" (why: {why})" for known, why in WHY.items() if known in case), "")
