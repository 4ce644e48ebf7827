"""One command on a GPU machine: is it right, how fast is it, and what the time goes into. Keeps a JSON file.

    python -m benchmarks.gpu_report [--models qwen3-0.6b llama-3.1-8b] [--skip-tests] [--out FILE]

Correctness first (tests/gpu, tests/backend/kernels): without it nothing is measured. Then the offline workloads with
their ratio to the peers' figures, which were measured on an H200 with the same workloads, what graphs and overlap
bring, and a trace of decode steps. Each part runs in a process of its own, so that it finds all of the GPU's memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

TESTS = [
    "-m",
    "pytest",
    "-q",
    "-o",
    "addopts=",
    "-o",
    "timeout=300",
    "--import-mode=importlib",
    "tests/gpu",
    "tests/backend/kernels",
]
RESULTS = Path(__file__).parent / "results"
VARIANTS = {"no graphs": "disable_cuda_graph=true", "no overlap": "disable_overlap_schedule=true"}
VARIANT_WORK = ["single", "decode64"]
PACKAGES = ("torch", "triton", "flashinfer-python", "transformers")


class Peer(NamedTuple):
    """The better of SGLang 0.5.15 and vLLM 0.24.0 on an H200: ``unit`` of the offline benchmark's rows."""

    unit: str
    value: float


PEERS = {
    "qwen3-0.6b": {
        "mixed": Peer("output_tok_s", 23_426),
        "single": Peer("output_tok_s", 605),
        "decode64": Peer("output_tok_s", 14_391),
        "prefill": Peer("input_tok_s", 343_759),
        "shared": Peer("seconds", 1.797),
    },
    "llama-3.1-8b": {
        "mixed": Peer("output_tok_s", 10_163),
        "single": Peer("output_tok_s", 204.6),
        "decode64": Peer("output_tok_s", 4_705),
        "prefill": Peer("input_tok_s", 41_189),
        "shared": Peer("seconds", 3.548),
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(PEERS), help="none: the tests alone")
    parser.add_argument("--skip-tests", action="store_true", help="keep what the file says of the last tests")
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/gpu-<name>.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_report needs a CUDA device, and torch sees none")
    report: dict[str, Any] = {"machine": machine(), "tests": None, "models": {}}
    out = args.out or RESULTS / f"gpu-{report['machine']['gpu'].replace(' ', '-').lower()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    if not args.skip_tests:
        report["tests"] = tests()
        out.write_text(json.dumps(report, indent=1) + "\n")
    elif out.exists():
        report["tests"] = json.loads(out.read_text())["tests"]
    for model in args.models:
        report["models"][model] = measure(model)
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report), f"\nkept in {out}", flush=True)


def machine() -> dict[str, str]:
    installed = {package: _version(package) for package in PACKAGES}
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "gpu": torch.cuda.get_device_name(),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        **installed,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def tests() -> str:
    """The last line of the test run. Ends the program when a test fails."""
    parallel = ["-n", "10"] if importlib.util.find_spec("xdist") else []
    done = subprocess.run([sys.executable, *TESTS, *parallel], text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"the tests fail, so nothing is measured:\n{done.stdout[-4000:]}")
    return done.stdout.strip().splitlines()[-1]


def measure(model: str) -> dict[str, Any]:
    lines = _lines("benchmarks.gpu_offline", model)
    found: dict[str, Any] = {"start_seconds": lines[0]["start_seconds"], "work": {}, "variants": {}}
    for line in lines[1:]:
        found["work"][line["workload"]] = line | _against_peer(model, line)
    for name, setting in VARIANTS.items():
        rows = _lines("benchmarks.gpu_offline", model, "--workloads", *VARIANT_WORK, "--set", setting)[1:]
        found["variants"][name] = {row["workload"]: row["output_tok_s"] for row in rows}
    found["decode_steps"] = _lines("benchmarks.gpu_trace", model, "--rows", "1", "256", "--json")
    return found


def _lines(module: str, *words: str) -> list[dict[str, Any]]:
    """What ``python -m module`` prints, a JSON object a line."""
    done = subprocess.run([sys.executable, "-m", module, *words], text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{module} {' '.join(words)} failed:\n{done.stderr[-4000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _against_peer(model: str, line: dict[str, Any]) -> dict[str, float]:
    peer = PEERS[model][line["workload"]]
    mine = line[peer.unit]
    return {"peer": peer.value, "ratio": round(peer.value / mine if peer.unit == "seconds" else mine / peer.value, 3)}


def table(report: dict[str, Any]) -> str:
    """Markdown, as the README has it."""
    lines = ["| model | work | Warmlane | best peer | ratio |", "|---|---|---|---|---|"]
    for model, found in report["models"].items():
        for name, row in found["work"].items():
            unit = PEERS[model][name].unit
            lines.append(
                f"| {model} | {name} | {_number(row[unit], unit)} | {_number(row['peer'], unit)} | {row['ratio']:.2f} |"
            )
    return "\n".join(lines)


def _number(value: float, unit: str) -> str:
    return f"{value:.2f} s" if unit == "seconds" else f"{value:,.0f} tok/s"


if __name__ == "__main__":
    main()
