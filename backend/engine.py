"""The offline engine: the same core as the server's, in the caller's process."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, cast

import msgspec
from tqdm import tqdm

from backend.config import ServerArgs
from backend.core import build_core
from backend.frontend import Intake, Limits, OutputProcessor, RequestOptions, RequestState, generate_result
from backend.frontend.intake import check_sampling, fan_out
from backend.grammar import GrammarSpec, spec_from_fields
from backend.grammar.spec import FIELDS as CONSTRAINTS
from backend.loader.model_config import load_model_config
from backend.messages import FromScheduler, NewRequest, ToScheduler
from backend.prompt import load_prompt, resolve_model
from backend.sampling_params import SamplingParams

PROGRESS_AFTER_SECONDS = 1.0

Sampling = SamplingParams | dict[str, Any]
Result = dict[str, Any]
Asked = tuple[SamplingParams, GrammarSpec | None]


class Engine:
    """Generates text offline. Arguments are the server's flags (:class:`backend.ServerArgs`); use it as a context
    manager.

    Calls from several threads, or several ``async_generate``, share the batch: whoever holds the lock steps for all.
    """

    def __init__(self, model_path: str | None = None, **server_args: Any) -> None:
        args = ServerArgs(model_path=model_path, **server_args)
        args.validate()
        if args.kv_events_config is not None:
            raise ValueError("kv_events_config: launch_server publishes KV events, Engine does not; leave it out")
        source = resolve_model(args.model_path, revision=args.revision, download_dir=args.download_dir)
        prompt = None if args.skip_tokenizer_init else load_prompt(source, args.chat_template, args.tokenizer_path)
        core = build_core(args, source)
        self.tokenizer = prompt.tokenizer if prompt else None
        self._scheduler = core.scheduler
        self._ready = core.ready
        self._intake = Intake(
            self.tokenizer,
            prompt.template if prompt else None,
            Limits(core.ready.context_length, core.ready.vocab_size, args.allow_auto_truncate, core.ready.task),
            () if prompt else load_model_config(source, args).eos_token_ids,
        )
        self._outputs = OutputProcessor()
        self._lock = threading.Lock()
        self._shut_down = False

    # -- generation -------------------------------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Sampling | Sequence[Sampling] | None = None,
        *,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        stream: bool = False,
        progress: bool = True,
    ) -> Result | list[Result] | Iterator[Result]:
        """Complete one prompt or a batch; the dictionaries are those of ``/generate``.

        One prompt and ``n == 1`` give one dictionary, anything else a list in order of the prompts. ``stream`` gives an
        iterator of the dictionaries as they grow, with ``index`` in a batch. A bar on stderr shows a batch that takes
        long, unless ``progress`` is false. ``ValueError`` for what cannot be served.
        """
        prompts, single = _prompts(prompt, input_ids)
        states = self._submit(prompts, _samplings(sampling_params, len(prompts)), streaming=stream)
        single = single and len(states) == 1
        if stream:
            return self._stream(states, single)
        self._finish(states, progress=progress and not single)
        results = [generate_result(state) for state in states]
        return results[0] if single else results

    async def async_generate(self, *args: Any, **kwargs: Any) -> Result | list[Result]:
        """:meth:`generate` without blocking the event loop. Not for ``stream``."""
        if kwargs.get("stream"):
            raise ValueError("async_generate does not stream; use generate(..., stream=True) in a thread")
        result = await asyncio.to_thread(self.generate, *args, progress=False, **kwargs)
        return cast("Result | list[Result]", result)

    def _submit(self, prompts: list[str | list[int]], samplings: list[Asked], streaming: bool) -> list[RequestState]:
        accepted: list[tuple[RequestState, NewRequest]] = []
        now = time.perf_counter()
        for prompt, (sampling, grammar) in zip(prompts, samplings, strict=True):
            check_sampling(sampling)
            ids = self._intake.tokenize(prompt)
            for option in fan_out(RequestOptions(sampling=sampling, grammar=grammar, streaming=streaming)):
                accepted.append(self._intake.accept(ids, option, len(accepted), now))
        states = [state for state, _ in accepted]
        with self._lock, _interrupts_later():
            self._check_open()
            for state in states:
                self._outputs.add(state)
            self._scheduler.receive(ToScheduler(new=[message for _, message in accepted]))
        return states

    def _finish(self, states: list[RequestState], progress: bool) -> None:
        """Step until every one of ``states`` is finished; aborts them when interrupted."""
        bar = tqdm(
            total=len(states),
            desc="generating",
            unit="req",
            delay=PROGRESS_AFTER_SECONDS,
            disable=not progress,
            leave=False,
        )
        try:
            with bar:
                while (done := sum(state.finish is not None for state in states)) < len(states):
                    bar.update(done - bar.n)
                    self._step()
        finally:
            self._abandon(states)
        for state in states:
            if state.finish is not None and state.finish.status_code is not None:
                raise ValueError(state.finish.message)

    def _stream(self, states: list[RequestState], single: bool) -> Iterator[Result]:
        sent = [(0, False)] * len(states)
        try:
            while not all(finished for _, finished in sent):
                for i, state in enumerate(states):
                    now = (state.completion_tokens, state.finish is not None)
                    if now != sent[i]:
                        sent[i] = now
                        yield generate_result(state) | ({} if single else {"index": state.index})
                if not all(state.finish for state in states):
                    self._step()
        finally:
            self._abandon(states)

    def _step(self, message: ToScheduler | None = None) -> FromScheduler:
        """Move everybody's requests on. A step answers messages too, so one without work is no waste."""
        with self._lock, _interrupts_later():
            self._check_open()
            if message is not None:
                self._scheduler.receive(message)
            out = self._scheduler.step()
            result = self._outputs.process(out, time.perf_counter())
            if result.abort:
                self._scheduler.receive(ToScheduler(abort=result.abort))
        return out

    def _check_open(self) -> None:
        if self._shut_down:
            raise RuntimeError("the engine was shut down; make a new one to generate more")

    def _abandon(self, states: list[RequestState], shut_down: bool = False) -> None:
        """Abort what is unfinished, after an interrupt or when a stream is closed early."""
        with self._lock, _interrupts_later():
            self._shut_down |= shut_down
            uids = [state.uid for state in states if state.finish is None and self._outputs.remove(state.uid)]
            if uids:
                self._scheduler.receive(ToScheduler(abort=uids))

    # -- the rest ---------------------------------------------------------------------------------------------------

    def flush_cache(self) -> bool:
        """Empty the prefix cache; false when requests are running."""
        flushed = self._step(ToScheduler(flush_cache=1)).flushed
        return flushed is not None and flushed[1]

    def get_server_info(self) -> dict[str, Any]:
        """Resolved sizes and the scheduler's counters."""
        return msgspec.structs.asdict(self._ready) | msgspec.structs.asdict(self._scheduler.stats)

    def shutdown(self) -> None:
        """Abort what runs: whoever waits for it in another thread gets a ``RuntimeError``, as do later calls.

        The memory goes with the object.
        """
        self._abandon(self._outputs.running(), shut_down=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """The first Ctrl-C waits for the end of the block, the second one does not: half a step leaves wrong books."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append((number, frame))
        if len(caught) > 1:
            usual(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if len(caught) == 1:
            usual(*caught[0])


def _prompts(
    prompt: str | Sequence[str] | None, input_ids: Sequence[int] | Sequence[Sequence[int]] | None
) -> tuple[list[str | list[int]], bool]:
    """The prompts as a list, and whether the caller gave just one."""
    if (prompt is None) == (input_ids is None):
        raise ValueError("give either prompt or input_ids")
    if isinstance(prompt, str):
        return [prompt], True
    if prompt is not None:
        return list(prompt), False
    if input_ids and isinstance(input_ids[0], int):
        return [list(input_ids)], True  # type: ignore[arg-type]
    return [list(ids) for ids in input_ids or ()], False  # type: ignore[arg-type]


def _samplings(given: Sampling | Sequence[Sampling] | None, count: int) -> list[Asked]:
    if isinstance(given, Sequence):
        if len(given) != count:
            raise ValueError(f"{len(given)} sampling_params for {count} prompts")
        return [_sampling(each) for each in given]
    return [_sampling(given)] * count


def _sampling(given: Sampling | None) -> Asked:
    if isinstance(given, SamplingParams):
        return given, None
    fields = dict(given or {})
    grammar = spec_from_fields(fields)
    for name in CONSTRAINTS:
        fields.pop(name, None)
    for name in ("stop", "stop_token_ids"):
        if isinstance(fields.get(name), str | int):
            fields[name] = [fields[name]]
    unknown = fields.keys() - set(SamplingParams.__struct_fields__)
    if unknown:
        raise ValueError(
            f"unknown sampling parameter {min(unknown)!r}; known: {', '.join(SamplingParams.__struct_fields__)}"
        )
    known = {name: value for name, value in fields.items() if value is not None}
    return msgspec.convert(known, SamplingParams), grammar
