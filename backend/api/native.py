"""``/generate``: SGLang's own way to ask, for one prompt or many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web
from pydantic import StrictInt

from backend.api.answers import answer_stream, answer_whole
from backend.api.context import CONTEXT
from backend.api.errors import SchemaError
from backend.api.sampling_fields import NativeSampling
from backend.api.schema import NOT_YET, SAMPLING_NOT_YET, Harmless, RequestFields, parse_json, refuse_not_yet
from backend.frontend.frontend import Frontend
from backend.frontend.intake import Prompt, RequestOptions
from backend.frontend.request import RequestState
from backend.frontend.results import generate_result

GENERATE_NOT_YET: Harmless = {
    **NOT_YET,
    "input_embeds": (),
    "return_logprob": (False,),
    "top_logprobs_num": (0,),
    "token_ids_logprob": (),
    "return_text_in_logprobs": (False,),
    "return_prompt_token_ids": (False,),
    "image_data": (),
    "video_data": (),
    "audio_data": (),
    "background": (False,),
}


class GenerateRequest(RequestFields):
    text: str | list[str] | None = None
    input_ids: list[StrictInt] | list[list[StrictInt]] | None = None
    sampling_params: dict[str, Any] | list[dict[str, Any]] = {}
    rid: str | list[str] | None = None
    log_metrics: bool = True


async def generate(request: web.Request) -> web.StreamResponse:
    frontend = request.app[CONTEXT].serving().frontend
    data = parse_json(await request.read())
    refuse_not_yet(data, GENERATE_NOT_YET)
    body = GenerateRequest.read(data)
    prompts, batch = _prompts(body)
    options = _options(body, len(prompts))
    many = batch or any(option.sampling.n > 1 for option in options)
    generation = await frontend.submit(prompts, options)
    if body.stream:
        return await answer_stream(request, generation, lambda moved: _events(moved, many))
    return await answer_whole(request, generation, lambda states: _whole(states, many))


async def probe(frontend: Frontend) -> None:
    """Generate one token, to see that the whole way works."""
    one_token = NativeSampling(temperature=0.0, max_new_tokens=1, ignore_eos=True).to_sampling()
    option = RequestOptions(sampling=one_token, rid="HEALTH_CHECK", log_metrics=False)
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
    options = []
    for given, rid in zip(params, rids, strict=True):
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
            )
        )
    return options


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


def _whole(states: list[RequestState], many: bool) -> Any:
    results = [generate_result(state) for state in states]
    return results if many else results[0]


def _events(moved: list[RequestState], many: bool) -> Iterable[Any]:
    """Each event tells the text so far; the items of a batch say which they are."""
    for state in moved:
        event = generate_result(state)
        if many:
            event["index"] = state.index
        yield event
