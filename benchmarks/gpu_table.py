"""The GPU report's figures as Markdown; README's tables are these."""

from __future__ import annotations

from typing import Any

Report = dict[str, Any]

TITLES = {"qwen3-0.6b": "Qwen3-0.6B", "llama-3.1-8b": "Llama-3.1-8B"}
WORK = {
    "mixed": "256 requests, in and out 100 to 1,024 each",
    "single": "1 request, 128 in, 256 out",
    "decode64": "64 requests, 1,024 in, 256 out",
    "prefill": "16 prompts of 4,096: prompt tokens",
    "shared": "256 questions of 128 to 4 texts of 4,096, 64 out",
}
UNITS = {"prefill": "input_tok_s", "shared": "seconds"}  # the others: output_tok_s


def unit_of(work: str) -> str:
    return UNITS.get(work, "output_tok_s")


def peers(report: Report) -> str:
    """Each workload beside the better peer."""
    rows = [
        [TITLES[model], WORK[name], number(row, name), peer(row, name), ratio(row["ratio"])]
        for model, found in report["models"].items()
        for name, row in found["work"].items()
    ]
    return markdown(["model", "work", "Warmlane", "best peer", "ratio"], rows)


def variants(report: Report) -> str:
    """What settings, and HTTP, bring or cost: each beside the defaults of the same run."""
    rows = []
    for model, found in report["models"].items():
        for name, results in found["variants"].items():
            for work, value in results.items():
                usual = found["work"][work]["output_tok_s"]
                rows.append([TITLES[model], name, work, f"{value:,.0f} tok/s", ratio(value / usual)])
        if served := found.get("serving"):
            value = f"{served['output_tok_s']:,.0f} tok/s"
            rows.append([TITLES[model], "over HTTP, streamed", served["workload"], value, ratio(served["ratio"])])
    return markdown(["model", "setting", "work", "result", "against the default"], rows)


def gaps(report: Report) -> str:
    """Where decode steps leave the GPU idle."""
    rows = [
        [TITLES[model], str(step["rows"]), f"{step['step_us']:,.0f} us", f"{step['between_us']:.1f} us"]
        for model, found in report["models"].items()
        for step in found["decode_steps"]
    ]
    return markdown(["model", "rows", "a decode step", "idle between two"], rows)


def first_tokens(report: Report) -> str:
    """What one prompt waits on an idle GPU."""
    rows = []
    for model, found in report["models"].items():
        if len(found["first_tokens"]) < 2:
            continue  # a setting could not be measured, which was told
        captured, by_kernel = (line["ms"] for line in found["first_tokens"])
        rows += [
            [TITLES[model], f"{int(tokens):,}", f"{ms:.1f} ms", f"{by_kernel[tokens]:.1f} ms"]
            for tokens, ms in captured.items()
        ]
    return markdown(["model", "prompt tokens", "first token", "without prompt graphs"], rows)


def number(row: dict[str, Any], work: str) -> str:
    return _shown(row[unit_of(work)], work)


def peer(row: dict[str, Any], work: str) -> str:
    return _shown(row["peer"], work)


def _shown(value: float, work: str) -> str:
    return f"{value:.2f} s" if unit_of(work) == "seconds" else f"{value:,.0f} tok/s"


def ratio(value: float) -> str:
    """Two digits, but never one for what is below it."""
    return f"{value:.3f}" if 0.995 <= value < 1 else f"{value:.2f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines).replace("| --- |", "|---|").replace(" --- |", "---|")
    )
