"""A backend's life: the port opens, the model loads, requests are served, and at the end nothing is left behind."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any, TypeVar

from aiohttp import web

from backend.api.app import create_app
from backend.api.context import Phase, ServedModel, ServerContext, Serving
from backend.api.metrics import Metrics
from backend.api.native import probe
from backend.api.parsers.choice import ParserChoice, choose_parsers
from backend.api.sampling_defaults import model_sampling_defaults
from backend.config import ServerArgs
from backend.frontend.client import SchedulerClient
from backend.frontend.errors import RequestError
from backend.frontend.frontend import Frontend
from backend.frontend.intake import Intake, Limits
from backend.frontend.process import STOP_SECONDS, SchedulerProcess, SchedulerTarget, run_real_scheduler
from backend.grammar import GrammarChecker
from backend.loader.model_config import ModelConfig, load_model_config
from backend.messages import SchedulerReady
from backend.prompt import ModelError, ModelSource, PromptAssets, TemplateError, load_prompt, resolve_model

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 20.0  # for running requests after a request to stop
CLOSE_SECONDS = 2.0  # for handlers to end after that
LAST_WORD_SECONDS = 0.5  # what the scheduler said before it died may still be on the way

_T = TypeVar("_T")


class StartError(Exception):
    """The server cannot start; one line for the person who started it."""


class Server:
    """One backend in this event loop and its scheduler in a child process."""

    def __init__(self, args: ServerArgs, target: SchedulerTarget = run_real_scheduler) -> None:
        self._args = args
        self._began = time.perf_counter()
        self._scheduler = SchedulerProcess(target)
        self.context = ServerContext(args)
        self._runner = web.AppRunner(
            create_app(self.context), handler_cancellation=True, access_log=None, shutdown_timeout=CLOSE_SECONDS
        )
        self._client: SchedulerClient | None = None
        self._dispatching: asyncio.Task[None] | None = None

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> int:
        """Serve until ``stop`` is set or the scheduler dies; ``hurry`` cuts the wait for running requests short.

        Returns the exit status; raises :class:`StartError`.
        """
        try:
            self._check_settings()
            address = await self._listen()
            loading = asyncio.create_task(self._load())
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not loading.done():
                    return 0
                self._announce(address, loading.result())
                return await self._serve(stopping, hurry)
            finally:
                await _cancel(loading, stopping)
        finally:
            await self._close()

    def _check_settings(self) -> None:
        try:
            self._args.validate()
        except ValueError as error:
            raise StartError(str(error)) from None

    async def _listen(self) -> str:
        """Open the port, so that probes see a server that starts instead of a closed door."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._args.host, self._args.port)
        try:
            await site.start()
        except OSError as error:
            where = f"{self._args.host} port {self._args.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror or error}; choose another --port") from None
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _load(self) -> Serving:
        """Find the model, start the scheduler and wait until it is ready."""
        args = self._args
        try:
            source = await asyncio.to_thread(
                resolve_model, args.model_path, revision=args.revision, download_dir=args.download_dir
            )
            config = await asyncio.to_thread(load_model_config, source)
            self._client = SchedulerClient(self._scheduler.to_scheduler, self._scheduler.from_scheduler)
            self._scheduler.start(args, source)
            assets = await asyncio.to_thread(_load_prompt, args, source)
            defaults = model_sampling_defaults(source) if args.sampling_defaults == "model" else {}
        except (ModelError, TemplateError) as error:
            raise StartError(str(error)) from None
        ready = await self._while_alive(self._client.ready())
        if ready.error:
            raise StartError(ready.error)
        serving = self._begin(_describe(args, source, config), assets, config, ready, self._client, defaults)
        if not args.skip_server_warmup:
            await self._while_alive(_warm_up(serving.frontend))
        self.context.phase = Phase.READY
        return serving

    async def _while_alive(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The result of ``work``, which needs the scheduler; a :class:`StartError` when that dies before."""
        working = asyncio.create_task(work)
        gone = asyncio.create_task(self._scheduler.ended())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                await asyncio.wait({working}, timeout=LAST_WORD_SECONDS)
            if not working.done():
                raise StartError(f"the scheduler process ended while starting (exit code {self._scheduler.exit_code})")
            return working.result()
        finally:
            await _cancel(working, gone)

    def _begin(
        self,
        model: ServedModel,
        assets: PromptAssets | None,
        config: ModelConfig,
        ready: SchedulerReady,
        client: SchedulerClient,
        sampling_defaults: dict[str, float],
    ) -> Serving:
        limits = Limits(ready.context_length, ready.vocab_size, self._args.allow_auto_truncate)
        if assets is None:
            intake = Intake(None, None, limits, config.eos_token_ids)
        else:
            intake = Intake(assets.tokenizer, assets.template, limits)
        metrics = Metrics(model.name, ready)
        grammars = None if self._args.grammar_backend == "none" else GrammarChecker()
        frontend = Frontend(intake, client, metrics, grammars=grammars)
        self._dispatching = asyncio.create_task(client.run(frontend.dispatch))
        self.context.loaded = Serving(frontend, model, ready, metrics, _parsers(self._args, assets), sampling_defaults)
        return self.context.loaded

    def _announce(self, address: str, serving: Serving) -> None:
        ready = serving.ready
        seconds = time.perf_counter() - self._began
        sys.stdout.write(
            f"warmlane backend ready on {address}: model {serving.model.name}, {ready.dtype} on {ready.device}, "
            f"KV room {ready.max_total_tokens} tokens, in {seconds:.1f} s\n"
        )
        sys.stdout.flush()

    async def _serve(self, stopping: asyncio.Task[bool], hurry: asyncio.Event) -> int:
        """Until asked to stop (0) or the scheduler is gone or its messages cannot be read (1)."""
        gone = asyncio.create_task(self._scheduler.ended())
        watched = {gone, stopping} | ({self._dispatching} if self._dispatching else set())
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._drain(hurry)
                return 0
            self._fail()
            return 1
        finally:
            await _cancel(gone)

    def _fail(self) -> None:
        """Tell everyone who waits, and the log, that the scheduler is lost."""
        reason = f"The scheduler process ended unexpectedly (exit code {self._scheduler.exit_code})."
        error = None
        if self._dispatching is not None and self._dispatching.done():
            reason, error = "The scheduler's messages cannot be read.", self._dispatching.exception()
        logger.error(reason, exc_info=error)
        self.context.phase, self.context.failure = Phase.FAILED, reason
        if self.context.loaded is not None:
            self.context.loaded.frontend.fail(RequestError(reason, HTTPStatus.SERVICE_UNAVAILABLE))

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Take no new requests; give the running ones time, then end them with what they have."""
        self.context.phase = Phase.STOPPING
        if self.context.loaded is None:
            return
        frontend = self.context.loaded.frontend
        enough = [asyncio.create_task(frontend.idle()), asyncio.create_task(hurry.wait())]
        await asyncio.wait(enough, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await _cancel(*enough)
        frontend.abort(None)

    async def _close(self) -> None:
        await self._runner.cleanup()
        if self.context.loaded is not None:
            self.context.loaded.frontend.close()
        if self._client is not None:
            self._client.shut_down()
        if self._dispatching is not None:
            await _cancel(self._dispatching)
        grace = STOP_SECONDS if self.context.loaded is not None else 0.0  # while loading it reads no messages
        await asyncio.to_thread(self._scheduler.stop, grace)
        if self._client is not None:
            self._client.close()


def _describe(args: ServerArgs, source: ModelSource, config: ModelConfig) -> ServedModel:
    return ServedModel(
        name=args.served_model_name or source.name,
        path=args.model_path or source.name,
        tokenizer_path=args.tokenizer_path or args.model_path or source.name,
        model_type=config.model_type,
        architectures=(config.architecture,),
    )


def _load_prompt(args: ServerArgs, source: ModelSource) -> PromptAssets | None:
    if args.skip_tokenizer_init:
        return None
    return load_prompt(source, args.chat_template, args.tokenizer_path)


def _parsers(args: ServerArgs, assets: PromptAssets | None) -> ParserChoice:
    template = assets.template if assets is not None else None
    return choose_parsers(args.reasoning_parser, args.tool_call_parser, "" if template is None else template.text)


async def _warm_up(frontend: Frontend) -> None:
    """One token, so that the first client does not pay for what is done once."""
    try:
        await probe(frontend)
    except RequestError as error:
        raise StartError(f"the first forward pass failed: {error.message}") from None


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    """Cancel what still runs and see it end; results and errors were read by whoever waited for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
