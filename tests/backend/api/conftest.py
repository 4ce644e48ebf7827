"""A whole HTTP server in the test's loop, over the fake scheduler in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
from aiohttp import web

from backend.api.app import create_app
from backend.api.context import Phase, ServedModel, ServerContext, Serving
from backend.api.metrics import Metrics
from backend.config import ServerArgs
from backend.frontend.client import SchedulerClient
from backend.frontend.frontend import Frontend
from backend.frontend.intake import Intake, Limits
from backend.grammar import GrammarChecker
from tests.backend.byte_tokenizer import ByteTokenizer, PlainTemplate
from tests.backend.fake_scheduler import FakeEngine, FakeSchedulerThread

MODEL = "echo"


@dataclass(slots=True)
class Backend:
    """The server under test and what is behind it."""

    url: str
    http: httpx.AsyncClient
    context: ServerContext
    frontend: Frontend
    engine: FakeEngine

    @property
    def sdk(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, http_client=self.http)

    async def nothing_runs(self) -> None:
        """Wait until no request is left in the frontend, then see that the scheduler has none either."""
        async with asyncio.timeout(10):
            await self.frontend.idle()
            assert await self.frontend.flush_cache(), f"still running: {list(self.engine.running)}"


StartBackend = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture
def start_backend(tmp_path: Path) -> StartBackend:
    """Starts a backend with settings of ServerArgs; at its end no request may be left."""

    @asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Backend]:
        addresses = (f"ipc://{tmp_path}/to", f"ipc://{tmp_path}/from")
        client = SchedulerClient(*addresses)
        scheduler = FakeSchedulerThread(*addresses)
        ready = await client.ready()
        limits = Limits(ready.context_length, ready.vocab_size)
        args = ServerArgs(**settings)
        words = (None, None) if args.skip_tokenizer_init else (ByteTokenizer(), PlainTemplate())
        grammars = GrammarChecker()
        metrics = Metrics(MODEL, ready, grammars=grammars.figures)
        frontend = Frontend(Intake(*words, limits), client, metrics, grammars=grammars)
        context = ServerContext(args, Phase.READY)
        context.loaded = Serving(frontend, ServedModel(MODEL, "/models/echo", "/models/echo"), ready, metrics)
        dispatching = asyncio.create_task(client.run(frontend.dispatch))
        runner = web.AppRunner(create_app(context), handler_cancellation=True, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
                backend = Backend(url, http, context, frontend, scheduler.engine)
                yield backend
            await backend.nothing_runs()
        finally:
            await runner.cleanup()
            frontend.close()
            grammars.close()
            client.shut_down()
            await asyncio.to_thread(scheduler.join)
            dispatching.cancel()
            await asyncio.gather(dispatching, return_exceptions=True)
            client.close()

    return start


@pytest.fixture
async def backend(start_backend: StartBackend) -> AsyncIterator[Backend]:
    async with start_backend() as started:
        yield started
