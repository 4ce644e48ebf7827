"""A router in an event loop of its own, with the backends that it starts, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Coroutine, Sequence
from typing import Any

from prometheus_client import disable_created_metrics

from router.app import Router
from router.config import ConfigError, RouterConfig
from router.fleet.discovery.membership import DiscoveryError
from router.fleet.worker import WorkerSpec
from router.local import LocalBackendError, LocalBackends
from router.processes.keeper import DataProcessError
from router.processes.owner import Owner
from router.progress import Progress, announce
from router.prompt_text import PromptText, PromptTextError, load_prompt_text

log = logging.getLogger("router")

STEP_SECONDS = 0.2
GC_THRESHOLDS = (20_000, 20, 50)  # the prefix index is many objects that live long: to search them often finds nothing


class StartError(Exception):
    """The router cannot run; a text for the person who started it."""


def run(config: RouterConfig, notes: Sequence[str] = ()) -> None:
    """Serve until a signal. ``notes`` are logged first. Raises :class:`StartError`."""
    prepare(config)
    for note in notes:
        log.warning(note)
    try:
        run_loop(serve(config, load_text(config)))
    except OSError as error:
        raise StartError(error.strerror or str(error)) from None
    except (ConfigError, DataProcessError, DiscoveryError, LocalBackendError, PromptTextError) as error:
        raise StartError(str(error)) from None


def prepare(config: RouterConfig, process: str = "") -> None:
    """Logging, with the name of the ``process``, and the garbage collector."""
    form = f"%(asctime)s %(levelname)s %(name)s{process}: %(message)s"
    logging.basicConfig(level=config.log_level.upper(), format=form)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # it shows a traceback for each malformed request
    # The times at which series began would double the exposition.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    gc.freeze()  # what is loaded by now stays
    gc.set_threshold(*GC_THRESHOLDS)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end in the fastest event loop of this platform."""
    try:
        import uvloop
    except ImportError:  # not on this platform
        asyncio.run(work)
    else:
        uvloop.run(work)


def load_text(config: RouterConfig) -> PromptText:
    """With the model's chat template if it can be had; backends of the router's own cannot start without it."""
    if config.model_path is None and not config.own_backends:
        return PromptText()
    try:
        return load_prompt_text(config)
    except PromptTextError as error:
        if config.own_backends:
            raise
        log.warning("placing requests without the model's chat template: %s", error)
        return PromptText()


async def serve(config: RouterConfig, prompt_text: PromptText) -> None:
    """Start, wait for a signal, drain and stop. A second signal ends the wait for requests under way."""
    stopping = asyncio.Event()
    now = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(
            number, lambda: now.set() if stopping.is_set() else stopping.set()
        )
    router = Router(config, prompt_text) if config.workers == 1 else Owner(config)
    router.inflight.starting = config.own_backends
    await router.start()
    local = LocalBackends.of(config) if config.own_backends else None
    try:
        if local is not None:
            await _bring_up(router, local, stopping)
        if not stopping.is_set():
            announce(config, router.port)
        await stopping.wait()
        log.info("stopping: %d requests under way", router.under_way)
        await _first_of(router.drain(), now.wait())
    finally:
        await router.stop()
        if local is not None:
            await local.stop()


async def _bring_up(router: Router | Owner, local: LocalBackends, stopping: asyncio.Event) -> None:
    """Start the local backends and wait until the router found all of them well."""
    local.on_end = router.backend_ended
    failed = await local.start()
    for url in local.urls:
        router.registry.add(WorkerSpec(url=url))
    progress = Progress(len(local.urls), local.log_paths)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + router.config.worker_startup_timeout_secs
    while len(router.registry.healthy()) < len(local.urls) and not stopping.is_set():
        if failed.done():
            progress.done()
            failed.result()
        if loop.time() > deadline:
            raise local.failure(
                f"the local backends were not ready after {router.config.worker_startup_timeout_secs:g} s "
                f"(--worker-startup-timeout-secs)"
            )
        progress.show(len(router.registry.healthy()))
        await asyncio.wait({failed}, timeout=STEP_SECONDS)
    progress.done()
    local.settled()
    router.inflight.starting = False
    router.state_changed()


async def _first_of(*awaitables: object) -> None:
    tasks = [asyncio.ensure_future(one) for one in awaitables]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
