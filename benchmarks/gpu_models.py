"""Every family's correctness on this device, and the speed of larger models with random weights.

    python -m benchmarks.gpu_models [--parts errors windows speed] [--models ...] [--seconds 280]

``errors``: logits in bfloat16 against float32, small shapes, each attention backend. ``windows``: greedy tokens with
and without pages of their own for layers with a window. ``speed``: the workloads mixed and single, beside what vLLM
did where that was measured. Writes
``benchmarks/results/gpu_models.json``; what does not begin within ``--seconds`` is left out and named. Without a GPU
it runs small shapes and short work, to show that it runs: those figures say nothing of speed.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_offline
from benchmarks.gpu_model_errors import model_errors
from benchmarks.model_shapes import LARGE, SMALL, Shape
from benchmarks.report import RESULTS

ON_GPU = torch.cuda.is_available()
WITH_WINDOWS = ("mistral", "gemma2", "gemma3", "gpt-oss")
WORKLOADS = {"single": 2, "mixed": 2}  # repeats
# vLLM 0.24.0 (FlashAttention 3, Triton experts with its tiles for this GPU), such work, greedy, best of two: output
# tokens a second on an H200 on 2026-11-21.
PEERS = {
    "qwen3-8b": {"single": 203.9, "mixed": 9590.0},
    "qwen3-30b-a3b": {"single": 230.5, "mixed": 5789.2},
}
DRY = SMALL["qwen3"] | {"torch_dtype": "bfloat16", "max_position_embeddings": 2048}
DRY_SPEED = {
    "qwen3-8b": DRY,
    "qwen3-30b-a3b": SMALL["qwen3-moe"] | {"max_position_embeddings": 2048},
    "deepseek-v2-lite": SMALL["deepseek-v2"] | {"max_position_embeddings": 2048},
}
Found = dict[str, Any]


def errors(names: list[str]) -> Iterator[tuple[str, Callable[[], list[Found]]]]:
    device = torch.device("cuda" if ON_GPU else "cpu")

    def measure(name: str) -> list[Found]:
        found = model_errors(name, SMALL[name], device, 230 if ON_GPU else 130)
        return [asdict(error) | {"passed": error.passed} for error in found]

    for name in names or SMALL:
        if name in SMALL:
            yield name, lambda name=name: measure(name)


def windows(names: list[str]) -> Iterator[tuple[str, Callable[[], list[Found]]]]:
    for name in names or WITH_WINDOWS:
        if name in WITH_WINDOWS:
            yield name, lambda name=name: [tokens_alike(name)]


def speed(names: list[str]) -> Iterator[tuple[str, Callable[[], list[Found]]]]:
    for name in names or LARGE:
        if name in LARGE:
            yield name, lambda name=name: _speed(name)


PARTS = {"errors": errors, "windows": windows, "speed": speed}


def tokens_alike(name: str) -> Found:
    """Greedy tokens in float32, through graphs where there are any, of two engines: pages apart, and not."""
    prompts = [_prompt(length) for length in (600, 333, 90, 7)]
    sampling = {"temperature": 0, "max_new_tokens": 40 if ON_GPU else 12, "ignore_eos": True}
    found = []
    for apart in (True, False):
        engine, _ = _engine(
            SMALL[name],
            dtype="float32",
            max_total_tokens=8192,
            chunked_prefill_size=256,
            max_running_requests=8,
            disable_hybrid_swa_memory=not apart,
            check_invariants=True,
        )
        with engine:
            rounds = [engine.generate(input_ids=prompts, sampling_params=sampling, progress=False) for _ in range(2)]
        found.append([[answer["output_ids"] for answer in answers] for answers in rounds])
    return {"model": name, "passed": found[0] == found[1] and found[0][0] == found[0][1]}


def _prompt(length: int) -> list[int]:
    return [3 + (i * i + 7 * length) % 1000 for i in range(length)]


def _engine(shape: Shape, **settings: Any) -> tuple[Any, float]:
    gpu_offline.MODELS["now"] = shape
    return gpu_offline.load("now", **settings)


def _speed(name: str) -> list[Found]:
    if ON_GPU:
        engine, started = _engine(LARGE[name])
    else:
        engine, started = _engine(DRY_SPEED[name], max_total_tokens=4096, max_running_requests=8, cpu_threads=1)
    found = [{"model": name, "start_seconds": round(started, 1)}]
    with engine:
        for workload, repeats in WORKLOADS.items():
            if ON_GPU:
                line = gpu_offline.measure(engine, "now", workload, repeats)
                found.append({"model": name} | line | _against_peer(name, workload, line["output_tok_s"]))
            else:
                work = [(_prompt(60), 5)] * (4 if workload == "mixed" else 1)
                found.append({"model": name, "workload": workload, "dry_run": gpu_offline.run(engine, work) > 0})
    return found


def _against_peer(model: str, workload: str, speed: float) -> Found:
    peer = PEERS.get(model, {}).get(workload)
    return {} if peer is None else {"peer": peer, "ratio": round(speed / peer, 3)}


def _free() -> None:
    gc.unfreeze()
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def run(parts: list[str], models: list[str], seconds: float) -> Found:
    """All that begins within ``seconds``; each line is printed as it is found."""
    began, found, left_out = time.monotonic(), {part: [] for part in parts}, []
    for part in parts:
        for name, measure in PARTS[part](models):
            if time.monotonic() - began > seconds:
                left_out.append(f"{part} {name}")
                continue
            for line in measure():
                found[part].append(line)
                print(json.dumps({"part": part} | line), flush=True)
            _free()
    device = torch.cuda.get_device_name() if ON_GPU else "cpu (dry run)"
    took = round(time.monotonic() - began)
    return {"device": device, "torch": torch.__version__, "seconds": took, "left_out": left_out, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", choices=[*SMALL, *LARGE], default=[])
    parser.add_argument("--seconds", type=float, default=280, help="nothing begins later")
    parser.add_argument("--save", type=Path, default=RESULTS / "gpu_models.json", help="of a run on a GPU")
    args = parser.parse_args()
    content = {"when": time.strftime("%Y-%m-%d %H:%M")} | run(args.parts, args.models, args.seconds)
    if ON_GPU:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        args.save.write_text(json.dumps(content, indent=1) + "\n")
        print(f"saved to {args.save}")
    failed = [line for part in args.parts for line in content[part] if line.get("passed") is False]
    raise SystemExit(f"{len(failed)} of the checks failed: {failed}" if failed else 0)


if __name__ == "__main__":
    main()
