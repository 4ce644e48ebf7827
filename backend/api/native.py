"""``/generate``: SGLang's own way to ask, for one prompt or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

from aiohttp import web
from pydantic import StrictInt

from backend.api.answers import answer_stream, answer_whole
from backend.api.constraints import native_constraint
from backend.api.context import CONTEXT
from backend.api.errors import SchemaError
from backend.api.sampling_fields import NativeSampling
from backend.api.schema import (
    IDS_AT_ONCE,
    NOT_YET,
    SAMPLING_NOT_YET,
    Harmless,
    RequestFields,
    parse_json,
    refuse_not_yet,
)
from backend.frontend.frontend import Frontend
from backend.frontend.intake import Prompt, RequestOptions, TokenizerLike
from backend.frontend.logprobs import TokenText
from backend.frontend.request import RequestState
from backend.frontend.results import generate_result
from backend.messages import LogprobSpec

GENERATE_NOT_YET: Harmless = {
    **NOT_YET,
    "input_embeds": (),
    "image_data": (),
    "video_data": (),
    "audio_data": (),
    "background": (False,),
}

MOST_TOP_LOGPROBS = 1000
Tell = Callable[[RequestState], dict[str, Any]]  # a request as it stands


class GenerateRequest(RequestFields):
    text: str | list[str] | None = None
    input_ids: Annotated[list[StrictInt] | list[list[StrictInt]] | None, IDS_AT_ONCE] = None
    sampling_params: dict[str, Any] | list[dict[str, Any]] = {}
    rid: str | list[str] | None = None
    log_metrics: bool = True
    return_logprob: bool | list[bool] = False
    logprob_start_len: int | list[int] = -1
    top_logprobs_num: int | list[int] = 0
    token_ids_logprob: list[StrictInt] | list[list[StrictInt] | None] = []
    return_text_in_logprobs: bool = False
    return_prompt_token_ids: bool = False


async def generate(request: web.Request) -> web.StreamResponse:
    frontend = request.app[CONTEXT].serving().frontend
    data = parse_json(await request.read())
    refuse_not_yet(data, GENERATE_NOT_YET)
    body = GenerateRequest.read(data)
    prompts, batch = _prompts(body)
    options = _options(body, len(prompts))
    many = batch or any(option.sampling.n > 1 for option in options)
    token_text = _token_text(frontend.intake.tokenizer if body.return_text_in_logprobs else None)
    tell = partial(_result, text=token_text, prompt_ids=body.return_prompt_token_ids)
    generation = await frontend.submit(prompts, options)
    if body.stream:
        return await answer_stream(request, generation, lambda moved: _events(moved, many, tell))
    return await answer_whole(request, generation, lambda states: _whole(states, many, tell))


async def probe(frontend: Frontend) -> None:
    """Generate one token, or one vector where the model writes none, to see that the whole way works."""
    writes = frontend.intake.limits.task == "generate"
    one_token = NativeSampling(temperature=0.0, max_new_tokens=int(writes), ignore_eos=True).to_sampling()
    pooling = "" if writes else "last"
    option = RequestOptions(sampling=one_token, pooling=pooling, rid="HEALTH_CHECK", log_metrics=False)
    generation = await frontend.submit([[0]], [option])
    async with generation:
        await generation.finished()


def _prompts(body: GenerateRequest) -> tuple[list[Prompt], bool]:
    """The prompts, and whether they came as a batch."""
    if (body.text is None) == (body.input_ids is None):
        raise SchemaError("Give either text or input_ids, and not both.", param="text")
    if body.text is not None:
        return ([body.text], False) if isinstance(body.text, str) else (list(body.text), True)
    ids: list[Any] = body.input_ids or []
    if ids and isinstance(ids[0], list):
        return ids, True
    return [ids], False


def _options(body: GenerateRequest, count: int) -> list[RequestOptions]:
    if count == 0:
        raise SchemaError("text: the batch is empty, got []", param="text")
    params = _spread("sampling_params", body.sampling_params, count)
    rids = _rids(body.rid, count)
    logprobs = _logprobs(body, count)
    options = []
    for given, rid, wanted in zip(params, rids, logprobs, strict=True):
        refuse_not_yet(given, SAMPLING_NOT_YET)
        fields = NativeSampling.read(given, "sampling_params")
        options.append(
            RequestOptions(
                sampling=fields.to_sampling(),
                rid=rid,
                streaming=body.stream,
                fit_output=fields.max_new_tokens is None,
                namespace=body.namespace,
                priority=body.priority,
                log_metrics=body.log_metrics,
                logprobs=wanted,
                grammar=native_constraint(given),
            )
        )
    return options


def _logprobs(body: GenerateRequest, count: int) -> list[LogprobSpec | None]:
    """What each prompt of the batch wants to know of its tokens' log probabilities."""
    ids: list[Any] = list(body.token_ids_logprob)
    spread_ids = ids if ids and not isinstance(ids[0], int) else [ids] * count
    rows = zip(
        _spread("return_logprob", body.return_logprob, count),
        _spread("logprob_start_len", body.logprob_start_len, count),
        _spread("top_logprobs_num", body.top_logprobs_num, count),
        _spread("token_ids_logprob", spread_ids, count),
        strict=True,
    )
    return [LogprobSpec(max(start, -1), _top(top), each or []) if wanted else None for wanted, start, top, each in rows]


def _top(count: int) -> int:
    if not 0 <= count <= MOST_TOP_LOGPROBS:
        message = f"top_logprobs_num must be between 0 and {MOST_TOP_LOGPROBS}, got {count}"
        raise SchemaError(message, param="top_logprobs_num")
    return count


def _token_text(tokenizer: TokenizerLike | None) -> TokenText:
    return lambda token: None if tokenizer is None else tokenizer.decode([token], skip_special_tokens=False)


def _spread(field: str, value: Any, count: int) -> list[Any]:
    """One value for all prompts, or a list with one for each."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise SchemaError(f"{field} has {len(value)} entries for {count} prompts.", param=field)
    return value


def _rids(rid: str | list[str] | None, count: int) -> list[str]:
    if isinstance(rid, str) and count > 1:
        return [f"{rid}_{i}" for i in range(count)]
    rids = _spread("rid", rid or "", count)
    named = [each for each in rids if each]
    if len(set(named)) < len(named):
        twice = next(each for each in named if named.count(each) > 1)
        raise SchemaError(f"rid names two requests of the batch alike: {twice!r}", param="rid")
    return rids


def _result(state: RequestState, text: TokenText, prompt_ids: bool) -> dict[str, Any]:
    result = generate_result(state, text)
    return {**result, "prompt_token_ids": state.prompt_ids} if prompt_ids else result


def _whole(states: list[RequestState], many: bool, tell: Tell) -> Any:
    results = [tell(state) for state in states]
    return results if many else results[0]


def _events(moved: list[RequestState], many: bool, tell: Tell) -> Iterable[Any]:
    """Each event tells the text so far; the items of a batch say which they are."""
    for state in moved:
        event = tell(state)
        if many:
            event["index"] = state.index
        yield event
