"""SGLang's serving benchmark with random token ids, over each of the APIs that it speaks to such a server."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path

from cases import arguments, case, check, note, version
from standin import stand_in

REQUESTS, INPUT, OUTPUT = 6, 32, 8
BACKENDS = ("sglang", "sglang-oai", "sglang-oai-chat", "vllm")


def bench(backend: str, url: str, model: str, tokenizer: str, folder: str) -> None:
    from sglang.benchmark.serving import cli_main

    result = Path(folder) / f"sglang-{backend}.jsonl"
    sys.argv = [
        "bench_serving", "--backend", backend, "--base-url", url, "--model", tokenizer, "--served-model-name", model,
        "--tokenizer", tokenizer, "--dataset-name", "random-ids", "--num-prompts", str(REQUESTS), "--seed", "1",
        "--random-range-ratio", "1", "--random-input-len", str(INPUT), "--random-output-len", str(OUTPUT),
        "--output-file", str(result), "--disable-tqdm",
    ]  # fmt: skip
    cli_main()
    told = json.loads(result.read_text().splitlines()[-1])
    check(told["completed"] == REQUESTS, f"{REQUESTS} answers, got {told['completed']}")
    check(told["total_output_tokens"] == REQUESTS * OUTPUT, f"all tokens counted, got {told['total_output_tokens']}")


def main() -> None:
    args = arguments()
    version(importlib.metadata.version("sglang"))
    import transformers.processing_utils  # noqa: F401 - it looks for the package that is replaced next

    stand_in("torchvision")
    note("torchvision replaced by an empty module")
    for backend in BACKENDS:
        case(
            f"--backend {backend}", lambda name=backend: bench(name, args.url, args.model, args.tokenizer, args.folder)
        )


if __name__ == "__main__":
    main()
