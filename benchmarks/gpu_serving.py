"""An offline workload over HTTP: a server in a process of its own, all requests at once, every answer streamed.

    python -m benchmarks.gpu_serving qwen3-0.6b [--workload mixed] [--clients 8] [--flags --chunked-prefill-size 4096]

Prints one JSON line: tokens a second as ``benchmarks.gpu_offline`` counts them, best of two, and how long clients
waited. The server tokenises and detokenises with a vocabulary of made-up words; prompts are sent as token ids. The
requests come from several client processes, so that the clients are not what is measured. They ask for the likeliest
tokens, as the offline workloads do; ``--temperature 1`` draws.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import string
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from benchmarks.gpu_offline import MODELS, WORKLOADS, Work
from benchmarks.processes import free_port, running
from benchmarks.serving import Seen, run
from benchmarks.serving_data import Ask
from benchmarks.serving_table import spread, times

CLIENTS = 8
REPEATS = 2
TIMEOUT = 300.0
WORD_LETTERS = 5


def write_folder(folder: Path, config: dict[str, Any]) -> None:
    """A model without weights, with a tokenizer whose every id is a word or a byte."""
    (folder / "config.json").write_text(json.dumps(config))
    letters = itertools.product(string.ascii_lowercase, repeat=WORD_LETTERS)
    words = ("Ġ" + "".join(each) for each in letters)  # the alphabet's sign for a space
    names = itertools.chain(sorted(ByteLevel.alphabet()), words)
    vocabulary = {name: i for i, name in enumerate(itertools.islice(names, config["vocab_size"]))}
    tokenizer = Tokenizer(BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.save(str(folder / "tokenizer.json"))


def ask_all(url: str, asks: Sequence[Ask]) -> list[Seen]:
    """Send all of ``asks`` at once and read their answers. Runs in a client's process."""
    arguments = argparse.Namespace(url=url, concurrency=0, rate=0.0, seed=0, timeout=TIMEOUT)
    return asyncio.run(run(arguments, asks))


def measure(url: str, work: Work, clients: Executor, count: int, temperature: float) -> tuple[float, list[Seen]]:
    """Seconds from the first request to the last answer, from an empty cache, and what the clients saw."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/flush_cache", method="POST"), timeout=60).close()
    asks = [Ask("default", tokens, prompt, temperature=temperature) for prompt, tokens in work]
    started = time.perf_counter()
    parts = [clients.submit(ask_all, url, asks[i::count]) for i in range(count)]
    seen = [each for part in parts for each in part.result()]
    seconds = time.perf_counter() - started
    for each in seen:
        if each.error:
            raise SystemExit(f"a request failed: {each.error}")
    return seconds, seen


def serve(
    folder: Path, work: Work, flags: Sequence[str] = (), count: int = CLIENTS, temperature: float = 0.0
) -> dict[str, Any]:
    """The best of some runs of ``work`` against a server of the model in ``folder``."""
    port = free_port()
    words = [
        "--model-path",
        str(folder),
        "--load-format",
        "dummy",
        "--port",
        str(port),
        "--log-level",
        "warning",
        *flags,
    ]
    with (
        running("backend.launch_server", *words, port=port) as url,
        ProcessPoolExecutor(count, mp_context=get_context("spawn")) as clients,
    ):
        ask = Ask("default", 2, work[0][0])
        for started in [clients.submit(ask_all, url, [ask]) for _ in range(4 * count)]:
            started.result()  # all processes are there, and everything has been loaded
        runs = [measure(url, work, clients, count, temperature) for _ in range(REPEATS)]
    seconds, seen = min(runs, key=lambda each: each[0])
    made = sum(each.tokens for each in seen)
    return {
        "seconds": round(seconds, 3),
        "requests": len(seen),
        "output_tokens": made,
        "output_tok_s": round(made / seconds, 1),
        "ms": {
            kind: {name: round(ms, 2) for name, ms in spread(values).items()} for kind, values in times(seen).items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="processes that send requests")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="of launch_server")
    arguments = parser.parse_args()
    config = MODELS[arguments.model]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), config)
        work = WORKLOADS[arguments.workload](config["vocab_size"])
        found = serve(Path(folder), work, arguments.flags, arguments.clients, arguments.temperature)
    print(json.dumps({"model": arguments.model, "workload": arguments.workload} | found), flush=True)


if __name__ == "__main__":
    main()
