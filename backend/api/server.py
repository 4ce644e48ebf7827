"""A backend's life: the port opens, the model loads, requests are served, and at the end nothing is left behind.

A scheduler that dies takes its requests with it, and is started again in a process of its own: the port stays open and
says 503 meanwhile. One that dies again and again ends the server.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from http import HTTPStatus

from aiohttp import web

from backend.api.app import create_app
from backend.api.context import Phase, ServerContext, Serving
from backend.api.loading import ModelFiles, Words, describe, find_model, read_words
from backend.api.metrics import Metrics
from backend.api.native import probe
from backend.api.restarts import RestartBudget
from backend.config import ServerArgs
from backend.frontend.errors import RequestError
from backend.frontend.frontend import Frontend
from backend.frontend.link import SchedulerDied, SchedulerLink, cancel
from backend.frontend.process import STOP_SECONDS, SchedulerTarget, run_real_scheduler
from backend.frontend.timeouts import Timeouts
from backend.grammar import GrammarChecker, VocabularyForm, require_library
from backend.grammar.libraries import XGRAMMAR
from backend.messages import SchedulerReady
from backend.prompt import ModelError, TemplateError

logger = logging.getLogger(__name__)

BACKLOG = 4096  # connections that may wait to be accepted: one that finds no place is tried again after a second
DRAIN_SECONDS = 20.0  # for running requests after a request to stop
CLOSE_SECONDS = 2.0  # for handlers to end after that


class StartError(Exception):
    """The server cannot start; one line for the person who started it."""


class Server:
    """One backend in this event loop and its scheduler in a child process."""

    def __init__(self, args: ServerArgs, target: SchedulerTarget = run_real_scheduler) -> None:
        self._args = args
        self._began = time.perf_counter()
        self._target = target
        self._timeouts = Timeouts()
        self.context = ServerContext(args)
        self._runner = web.AppRunner(
            create_app(self.context), handler_cancellation=True, access_log=None, shutdown_timeout=CLOSE_SECONDS
        )
        self._link: SchedulerLink | None = None
        self._files: ModelFiles | None = None
        self._words: Words | None = None
        # For all schedulers: a request whose grammar is being checked when one dies is told so, not cut off.
        self._grammars = None if args.grammar_backend == "none" else GrammarChecker(library=args.grammar_backend)

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event) -> int:
        """Serve until ``stop`` is set or the scheduler died too often; ``hurry`` does not wait for running requests.

        Returns the exit status; raises :class:`StartError`.
        """
        stopping = asyncio.create_task(stop.wait())
        try:
            self._check_settings()
            address = await self._listen()
            return await self._live(address, stopping, hurry)
        finally:
            await cancel(stopping)
            await self._close()

    def _check_settings(self) -> None:
        try:
            self._args.validate()
            self._timeouts = Timeouts.of(self._args, os.environ)
            require_library(self._args.grammar_backend)
        except ValueError as error:
            raise StartError(str(error)) from None

    async def _listen(self) -> str:
        """Open the port, so that probes see a server that starts instead of a closed door."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._args.host, self._args.port, backlog=BACKLOG)
        try:
            await site.start()
        except OSError as error:
            where = f"{self._args.host} port {self._args.port}"
            raise StartError(f"cannot listen on {where}: {error.strerror or error}; choose another --port") from None
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def _live(self, address: str, stopping: asyncio.Task[bool], hurry: asyncio.Event) -> int:
        """One scheduler after the other, until asked to stop (0) or no more restarts are left (1)."""
        restarts = RestartBudget(self._args.max_scheduler_restarts)
        try:
            link = await self._begin(stopping)
        except SchedulerDied as died:
            raise StartError(str(died)) from None
        if link is not None:
            self._announce(address)
        while link is not None:
            lost = asyncio.create_task(link.lost())
            try:
                await asyncio.wait({lost, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done():
                    await self._drain(hurry)
                    return 0
                reason, error = lost.result()
            finally:
                await cancel(lost)
            try:
                link = await self._begin_again(restarts, stopping, reason, error)
            except SchedulerDied:
                return 1
        return 0

    async def _begin_again(
        self, restarts: RestartBudget, stopping: asyncio.Task[bool], reason: str, error: BaseException | None
    ) -> SchedulerLink | None:
        """A new scheduler after one that was lost for ``reason``; one that dies as it starts was a restart as well.

        None when asked to stop before it was ready. Raises :class:`SchedulerDied` when no restart is left.
        """
        while True:
            again = restarts.take(time.monotonic())
            self._fail(reason, error, again=again)
            if not again:
                raise SchedulerDied(reason)
            lost, self._link = self._link, None
            if lost is not None:
                await lost.close(grace=0.0)
            try:
                return await self._begin(stopping)
            except SchedulerDied as died:
                reason, error = f"The scheduler could not start again: {died}.", None

    async def _begin(self, stopping: asyncio.Task[bool]) -> SchedulerLink | None:
        """Start a scheduler and serve with it; None when asked to stop before it was ready.

        Raises :class:`StartError`, and :class:`SchedulerDied` when its process ended.
        """
        loading = asyncio.create_task(self._load())
        try:
            await asyncio.wait({loading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return loading.result() if loading.done() else None
        finally:
            await cancel(loading)

    async def _load(self) -> SchedulerLink:
        try:
            files = self._files = self._files or await find_model(self._args)
            link = self._link = SchedulerLink(self._target)
            link.start(self._args, files.source)
            words = self._words = self._words or await read_words(self._args, files.source)
            self._prepare_checks(files, words)
            ready = await link.ready()
            if ready.error:
                raise StartError(ready.error)
            self._connect(link, files, words, ready)
            if not self._args.skip_server_warmup and self.context.loaded is not None:
                await link.while_alive(_warm_up(self.context.loaded.frontend))
        except (ModelError, TemplateError) as error:
            raise StartError(str(error)) from None
        gc.collect()
        gc.freeze()  # what is loaded by now stays
        self.context.phase = Phase.READY
        return link

    def _prepare_checks(self, files: ModelFiles, words: Words) -> None:
        """xgrammar's work grows with the vocabulary, so grammars are tried with the model's own."""
        if self._grammars is not None and self._grammars.library == XGRAMMAR and words.assets is not None:
            self._grammars.try_with(VocabularyForm.of(words.assets.tokenizer, files.config.vocab_size))

    def _connect(self, link: SchedulerLink, files: ModelFiles, words: Words, ready: SchedulerReady) -> None:
        """Serve with the scheduler behind ``link``; what was counted before a restart stays counted."""
        model, before = describe(self._args, files), self.context.loaded
        if before is None:
            figures = None if self._grammars is None else self._grammars.figures
            metrics = Metrics(model.name, ready, grammars=figures)
        else:
            metrics = before.metrics
            metrics.restarted(ready)
        intake = words.intake(self._args, files.config, ready)
        frontend = Frontend(intake, link.client, metrics, grammars=self._grammars)
        link.attach(frontend, self._timeouts)
        self.context.loaded = Serving(frontend, model, ready, metrics, words.parsers, words.sampling_defaults)

    def _announce(self, address: str) -> None:
        if self.context.loaded is None:
            return
        ready, model = self.context.loaded.ready, self.context.loaded.model
        seconds = time.perf_counter() - self._began
        sys.stdout.write(
            f"warmlane backend ready on {address}: model {model.name}, {ready.dtype} on {ready.device}, "
            f"KV room {ready.max_total_tokens} tokens, in {seconds:.1f} s\n"
        )
        sys.stdout.flush()

    def _fail(self, reason: str, error: BaseException | None, *, again: bool) -> None:
        """Tell everyone who waits, and the log, that the scheduler is lost."""
        more = " It is started again." if again else " It is not started again (--max-scheduler-restarts)."
        logger.error(reason + more, exc_info=error)
        self.context.phase, self.context.failure = Phase.RESTARTING if again else Phase.FAILED, reason
        if self.context.loaded is not None:
            self.context.loaded.frontend.fail(RequestError(reason, HTTPStatus.SERVICE_UNAVAILABLE))

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Take no new requests; give the running ones time, then end them with what they have."""
        self.context.phase = Phase.STOPPING
        if self.context.loaded is None:
            return
        frontend = self.context.loaded.frontend
        if frontend.paused:
            hurry.set()  # nothing would move on
        enough = [asyncio.create_task(frontend.idle()), asyncio.create_task(hurry.wait())]
        await asyncio.wait(enough, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await cancel(*enough)
        frontend.abort(None)

    async def _close(self) -> None:
        await self._runner.cleanup()
        if self._link is not None:
            # While it loads it reads no messages.
            await self._link.close(STOP_SECONDS if self.context.loaded is not None else 0.0)
        if self._grammars is not None:
            await asyncio.to_thread(self._grammars.close)


async def _warm_up(frontend: Frontend) -> None:
    """One token, so that the first client does not pay for what is done once."""
    try:
        await probe(frontend)
    except RequestError as error:
        raise StartError(f"the first forward pass failed: {error.message}") from None
