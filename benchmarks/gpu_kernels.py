"""Each kernel against what the device could do at best, for our Triton kernels, FlashInfer's and torch's.

    python -m benchmarks.gpu_kernels [--only decode prefill ...] [--json FILE]

The last column is the share of the roofline: the time that copying the bytes that must move, or multiplying what must
be multiplied, would take at rates measured in the same run. Without a GPU it runs tiny sizes under Triton's
interpreter, which shows that everything runs and nothing else.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from benchmarks import gpu_attention_cases, gpu_layer_cases
from benchmarks.gpu_case import Case, Cases
from benchmarks.gpu_timing import Roof, seconds

CASES: dict[str, Callable[[torch.device], Cases]] = {
    "decode": gpu_attention_cases.decode,
    "prefill": gpu_attention_cases.prefill,
    "norms": gpu_layer_cases.norms,
    "gates": gpu_layer_cases.gates,
    "rotations": gpu_layer_cases.rotations,
    "sampling": gpu_layer_cases.sampling,
}


@dataclass(frozen=True, slots=True)
class Line:
    work: str
    kernel: str
    microseconds: float
    gigabytes_per_second: float
    teraflops: float
    roofline: float


def measure(case: Case, roof: Roof) -> Line:
    took = seconds(case.call, capture=case.captures)
    return Line(
        case.work,
        case.kernel,
        round(took * 1e6, 2),
        round(case.moved / took / 1e9, 1),
        round(case.operations / took / 1e12, 1),
        round(roof.share(took, moved=case.moved, operations=case.operations), 3),
    )


def lines(only: list[str] | None, roof: Roof, device: torch.device) -> Iterator[Line]:
    for name, cases in CASES.items():
        if only and name not in only:
            continue
        for make in cases(device):
            try:
                case = make()
            except ValueError as error:  # a backend that does not do this shape says so
                print(f"-- {name}: {error}")
                continue
            yield measure(case, roof)
            del case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(CASES))
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    roof = Roof.measured(device, 8192 if device.type == "cuda" else 128)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, interpreted"
    print(f"{name}: copies at {roof.bandwidth / 1e9:.0f} GB/s, bfloat16 products at {roof.rate / 1e12:.1f} TFLOP/s")
    print(f"{'work':44} {'kernel':12} {'us':>10} {'GB/s':>8} {'TFLOP/s':>8} {'of roof':>8}")
    found = []
    with torch.inference_mode():
        for line in lines(args.only, roof, device):
            found.append(line)
            print(
                f"{line.work:44} {line.kernel:12} {line.microseconds:10.1f} {line.gigabytes_per_second:8.0f} "
                f"{line.teraflops:8.1f} {line.roofline:8.1%}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(report(name, roof, found), indent=1) + "\n")


def report(device: str, roof: Roof, found: list[Line]) -> dict[str, object]:
    packages = ("torch", "triton", "flashinfer")
    modules = {package: importlib.import_module(package) for package in packages if importlib.util.find_spec(package)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "versions": {package: module.__version__ for package, module in modules.items()},
        "roof": asdict(roof),
        "lines": [asdict(line) for line in found],
    }


if __name__ == "__main__":
    main()
