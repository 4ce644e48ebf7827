"""What the host tier saves: the time to the first token of a prompt whose KV is on the device, on the host, or nowhere.

    python -m benchmarks.host_tier [--tokens 512 1024] [--model-path PATH] [--load-format dummy]

The KV cache holds little more than one prompt, so that two prompts asked for in turns are always fetched from the host.
A prompt that nobody has seen and one that was asked for just before are timed between them; medians count.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from backend import Engine

SAMPLING = {"temperature": 0, "max_new_tokens": 1, "ignore_eos": True}
ROOM = 1.1  # KV cache, in prompts


def ask(engine: Engine, prompt: list[int], cached: int, from_host: int) -> float:
    """Seconds to the first token; ``SystemExit`` when the prompt was not cached as it should be."""
    started = time.perf_counter()
    meta = engine.generate(input_ids=prompt, sampling_params=SAMPLING, progress=False)["meta_info"]
    seconds = time.perf_counter() - started
    found = meta["cached_tokens"], meta.get("cached_tokens_details", {}).get("host", 0)
    if found != (cached, from_host):
        raise SystemExit(f"{found} tokens were cached (of them on the host), not {(cached, from_host)}")
    return seconds


def measure(args: argparse.Namespace, tokens: int) -> dict[str, float]:
    """Median seconds by where the prompt's KV is."""
    random, seconds = np.random.default_rng(0), {"nowhere": [], "host": [], "device": []}  # type: ignore[var-annotated]
    with Engine(
        args.model_path,
        dtype=args.dtype,
        device=args.device,
        load_format=args.load_format,
        skip_tokenizer_init=True,
        max_total_tokens=int(tokens * ROOM) // 16 * 16,
        enable_hierarchical_cache=True,
        hicache_ratio=args.repeat + 6,
    ) as engine:

        def prompt() -> list[int]:
            return random.integers(100, 10_000, tokens + 1).tolist()

        turns = [prompt(), prompt()]
        for each in turns:
            ask(engine, each, 0, 0)
        for i in range(args.repeat):
            seconds["host"].append(ask(engine, turns[i % 2], tokens, tokens))
            seconds["device"].append(ask(engine, turns[i % 2], tokens, 0))
            seconds["nowhere"].append(ask(engine, prompt(), 0, 0))
    return {where: statistics.median(taken) for where, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path")
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 1024], help="multiples of 16")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--load-format", default="auto", help="dummy: a folder with a configuration is enough")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    print("milliseconds to the first token, by where the prompt's KV is")
    print(f"{'tokens':>7}{'nowhere':>10}{'host':>10}{'device':>10}{'host against nowhere':>24}")
    for tokens in args.tokens:
        found = {where: 1000 * seconds for where, seconds in measure(args, tokens).items()}
        times = f"{found['nowhere'] / found['host']:.1f}x sooner"
        print(f"{tokens:>7}{found['nowhere']:>10.1f}{found['host']:>10.1f}{found['device']:>10.1f}{times:>24}")


if __name__ == "__main__":
    main()
