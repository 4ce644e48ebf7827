"""A router as ``launch_router`` starts it, but one that never learns a speed: the assumption to compare with.

python -m benchmarks.placement_equal_speeds --ms-per-token 0.02 --port 8080 http://127.0.0.1:30001 ...
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from dataclasses import replace

from policies import RateBook, WorkerLoad, WorkerSpeed
from router.app import Router
from router.config import RouterConfig


class EqualSpeeds(RateBook):
    """Every worker has the speed that it was made with, whatever it shows."""

    def observe(self, worker: str, uncached_tokens: int, load: WorkerLoad, ttft_ms: float, now: float = 0.0) -> None:
        """Nothing is learned."""


async def serve(port: int, ms_per_token: float, urls: list[str]) -> None:
    """Until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    router = Router(RouterConfig(host="127.0.0.1", port=port, router_hosts=urls))
    router.placement = replace(router.placement, speeds=EqualSpeeds(WorkerSpeed(prefill_ms_per_token=ms_per_token)))
    await router.start()
    await stopping.wait()
    await router.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ms-per-token", type=float, required=True)
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.ms_per_token, args.urls))


if __name__ == "__main__":
    main()
