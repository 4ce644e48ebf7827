"""One command on a GPU machine: is it right, how fast is it, and what the time goes into. Keeps a JSON file.

    python -m benchmarks.gpu_report [--models qwen3-0.6b llama-3.1-8b] [--tests PATHS | --skip-tests] [--out FILE]

Correctness first (tests/gpu, tests/backend/kernels): without it nothing is measured. Where GPU time comes in pieces,
several calls make one file: of some models, of some tests again; each part says when it was made. Parts that other
versions or another GPU made are dropped.

Then the offline workloads with their ratio to the peers' figures, which were measured on an H200 with the same
workloads; what graphs, overlap, torch.compile and keys and values in 8 bits bring; how long a first token takes; the
same over HTTP; and a trace of decode steps. Each part runs in a process of its own, so that it finds all of the GPU's
memory.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks import gpu_table
from benchmarks.gpu_table import Report

PYTEST = ["-m", "pytest", "-q", "-o", "addopts=", "-o", "timeout=300", "--import-mode=importlib"]
TESTED = ["tests/gpu", "tests/backend/kernels"]
TESTED_ALONE = ["tests/gpu/test_memory.py"]
RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "triton", "flashinfer-python", "transformers")
SERVED = "mixed"


class Variant(NamedTuple):
    """A setting, or several, and the workloads that show what it does."""

    settings: str
    work: tuple[str, ...]


VARIANTS = {
    "torch.compile": Variant("enable_torch_compile=true torch_compile_max_bs=1", ("single",)),
}
MORE_VARIANTS = {
    "qwen3-0.6b": {
        "no graphs": Variant("disable_cuda_graph=true", ("single", "decode64")),
        "no overlap": Variant("disable_overlap_schedule=true", ("single", "decode64")),
        "keys and values in FP8 (e4m3)": Variant("kv_cache_dtype=fp8_e4m3", ("mixed", "decode64")),
    }
}
# The better of SGLang 0.5.15 and vLLM 0.24.0 on an H200, in the units of gpu_table.
PEERS = {
    "qwen3-0.6b": {"mixed": 23_426, "single": 605, "decode64": 14_391, "prefill": 343_759, "shared": 1.797},
    "llama-3.1-8b": {"mixed": 10_163, "single": 204.6, "decode64": 4_705, "prefill": 41_189, "shared": 3.548},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(PEERS), help="none: the tests alone")
    tested = parser.add_mutually_exclusive_group()
    tested.add_argument("--tests", nargs="+", metavar="PATH", help="these alone; the file keeps the runs before, too")
    tested.add_argument("--skip-tests", action="store_true", help="keep what the file says of the runs before")
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results/gpu-<name>.json")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("gpu_report needs a CUDA device, and torch sees none")
    found = machine()
    out = args.out or RESULTS / f"gpu-{found['gpu'].replace(' ', '-').lower()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    report = continued(json.loads(out.read_text()) if out.exists() else None, found)
    if not args.skip_tests:
        runs = tests(args.tests)
        report["tests"] = [*(report["tests"] if args.tests else []), *runs]
        _keep(report, out)
        if any(run["failed"] for run in runs):
            sys.exit("the tests fail, so nothing is measured")
    for model in args.models:
        report["models"][model] = {"at": now()} | measure(model)
        _keep(report, out)
    tables = (
        gpu_table.peers(report),
        gpu_table.variants(report),
        gpu_table.gaps(report),
        gpu_table.first_tokens(report),
    )
    print("\n\n".join(tables), f"\nkept in {out}", flush=True)


def continued(before: Report | None, machine: dict[str, str]) -> Report:
    """What an earlier call kept, unless a GPU or packages of another kind made it."""
    same = before is not None and before["machine"] | {"date": machine["date"]} == machine
    kept = before if before is not None and same else {"tests": [], "models": {}}
    return {"machine": machine, "tests": kept["tests"], "models": kept["models"]}


def _keep(report: Report, out: Path) -> None:
    out.write_text(json.dumps(report, indent=1) + "\n")


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")


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


def tests(chosen: Sequence[str] | None) -> list[dict[str, Any]]:
    """Test runs, of all or of the ``chosen`` paths: when, of what, pytest's last line, and whether any test failed."""
    parallel = ["-n", "10"] if importlib.util.find_spec("xdist") else []
    if chosen:
        return [_tested(list(chosen), [])]
    runs = [_tested(TESTED, parallel)]
    return [*runs, _tested(TESTED_ALONE, [])] if parallel else runs


def _tested(paths: list[str], options: list[str]) -> dict[str, Any]:
    at, command = now(), [sys.executable, *PYTEST, *options, *paths]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout[-4000:] + done.stderr[-1000:])
    last = (done.stdout.strip() or done.stderr.strip() or f"pytest said nothing: {done.returncode}").splitlines()[-1]
    return {"at": at, "of": paths, "said": last, "failed": done.returncode != 0}


def measure(model: str) -> dict[str, Any]:
    lines = _lines("benchmarks.gpu_offline", model)
    if not lines:
        sys.exit(f"nothing of {model} could be measured")
    found: dict[str, Any] = {"start_seconds": lines[0]["start_seconds"], "work": {}, "variants": {}}
    for line in lines[1:]:
        found["work"][line["workload"]] = line | _against_peer(model, line)
    found["decode_steps"] = _lines("benchmarks.gpu_trace", model, "--rows", "1", "256", "--json")
    found["first_tokens"] = _lines("benchmarks.gpu_first_token", model)
    for served in _lines("benchmarks.gpu_serving", model, "--workload", SERVED):
        found["serving"] = served | {"ratio": round(served["output_tok_s"] / found["work"][SERVED]["output_tok_s"], 3)}
    for name, variant in (VARIANTS | MORE_VARIANTS.get(model, {})).items():
        rows = _lines(
            "benchmarks.gpu_offline", model, "--workloads", *variant.work, "--set", *variant.settings.split()
        )[1:]
        found["variants"][name] = {row["workload"]: row["output_tok_s"] for row in rows}
    return found


def _lines(module: str, *words: str) -> list[dict[str, Any]]:
    """What ``python -m module`` prints, a JSON object a line; what it had when it failed, which is told."""
    done = subprocess.run([sys.executable, "-m", module, *words], text=True, capture_output=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{module} {' '.join(words)} failed:\n{done.stderr[-4000:]}\n")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _against_peer(model: str, line: dict[str, Any]) -> dict[str, float]:
    unit, peer = gpu_table.unit_of(line["workload"]), PEERS[model][line["workload"]]
    return {"peer": peer, "ratio": round(peer / line[unit] if unit == "seconds" else line[unit] / peer, 3)}


if __name__ == "__main__":
    main()
