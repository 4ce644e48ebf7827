"""``vllm bench serve`` with random prompts, without vLLM's compiled parts."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
from pathlib import Path

from cases import arguments, case, check, version

REQUESTS, INPUT, OUTPUT = 6, 32, 8
WAYS = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}


def bench(backend: str, url: str, model: str, tokenizer: str, folder: str) -> None:
    from vllm.benchmarks.serve import add_cli_args, main_async

    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    asked = parser.parse_args([
        "--backend", backend, "--base-url", url, "--endpoint", WAYS[backend], "--model", tokenizer,
        "--served-model-name", model, "--tokenizer", tokenizer, "--dataset-name", "random", "--num-prompts",
        str(REQUESTS), "--random-input-len", str(INPUT), "--random-output-len", str(OUTPUT), "--ignore-eos",
        "--disable-tqdm", "--save-result", "--result-dir", folder, "--result-filename", f"vllm-{backend}.json",
    ])  # fmt: skip
    asyncio.run(main_async(asked))
    told = json.loads((Path(folder) / f"vllm-{backend}.json").read_text())
    check(told["completed"] == REQUESTS, f"{REQUESTS} answers, got {told['completed']}")
    check(told["total_output_tokens"] == REQUESTS * OUTPUT, f"all tokens counted, got {told['total_output_tokens']}")


def main() -> None:
    args = arguments()
    version(importlib.metadata.version("vllm"))
    for backend in WAYS:
        case(
            f"--backend {backend}", lambda name=backend: bench(name, args.url, args.model, args.tokenizer, args.folder)
        )


if __name__ == "__main__":
    main()
