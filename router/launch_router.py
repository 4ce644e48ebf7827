"""``launch_router``: from the command line to a running router."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from prometheus_client import disable_created_metrics

from backend.flags import parse
from router.app import Router
from router.config import ConfigError, RouterConfig
from router.flags import ROUTER_FLAGS
from router.fleet.worker import WorkerSpec
from router.local import LocalBackendError, LocalBackends
from router.progress import Progress, announce
from router.prompt_text import PromptText, load_prompt_text

log = logging.getLogger("router")

PROG = "launch_router"
ABOUT = "A cache-aware router in front of LLM inference servers. With no --router-hosts it starts backends of its own."
STEP_SECONDS = 0.2


def main(argv: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT. Exit status 0: stopped, 1: cannot run, 2: a wrong flag or setting."""
    flags = parse(ROUTER_FLAGS, sys.argv[1:] if argv is None else argv, PROG, ABOUT)
    try:
        config = RouterConfig.from_values(flags.values)
    except ConfigError as error:
        _fail(2, str(error))
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it shows a traceback for each malformed request
    # The times at which series began would double the exposition.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for line in flags.accepted:
        log.warning(line)
    try:
        _run(config)
    except OSError as error:
        _fail(1, error.strerror or str(error))
    except LocalBackendError as error:
        _fail(1, str(error))


def _run(config: RouterConfig) -> None:
    knows_model = config.model_path is not None or config.own_backends
    prompt_text = load_prompt_text(config) if knows_model else PromptText()
    try:
        import uvloop
    except ImportError:  # not on this platform
        asyncio.run(serve(config, prompt_text))
    else:
        uvloop.run(serve(config, prompt_text))


async def serve(config: RouterConfig, prompt_text: PromptText) -> None:
    """Start, wait for a signal, drain and stop. A second signal ends the wait for requests under way."""
    stopping = asyncio.Event()
    now = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: now.set() if stopping.is_set() else stopping.set()
        )
    router = Router(config, prompt_text)
    await router.start()
    local = LocalBackends.of(config) if config.own_backends else None
    try:
        if local is not None:
            await _bring_up(router, local, stopping)
        if not stopping.is_set():
            announce(router)
        await stopping.wait()
        log.info("stopping: %d requests under way", router.inflight.count)
        await _first_of(router.drain(), now.wait())
    finally:
        await router.stop()
        if local is not None:
            await local.stop()


async def _bring_up(router: Router, local: LocalBackends, stopping: asyncio.Event) -> None:
    """Start the local backends and wait until the router found all of them well."""
    failed = await local.start()
    for url in local.urls:
        router.registry.add(WorkerSpec(url=url))
    progress = Progress(len(local.urls), local.log_paths)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + router.config.worker_startup_timeout_secs
    while len(router.registry.healthy()) < len(local.urls) and not stopping.is_set():
        if failed.done():
            failed.result()
        if loop.time() > deadline:
            raise LocalBackendError(
                f"the local backends were not ready after {router.config.worker_startup_timeout_secs:g} s "
                f"(--worker-startup-timeout-secs); their logs: {', '.join(map(str, local.log_paths))}"
            )
        progress.show(len(router.registry.healthy()))
        await asyncio.sleep(STEP_SECONDS)
    progress.done()
    local.settled()


async def _first_of(*awaitables: object) -> None:
    tasks = [asyncio.ensure_future(one) for one in awaitables]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _fail(status: int, message: str) -> None:
    sys.stderr.write(f"{PROG}: error: {message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
