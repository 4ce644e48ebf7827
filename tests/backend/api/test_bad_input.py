"""Bad requests: a 4xx that names the field and the value, in the shape of the route, and nothing left running."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.backend.api.conftest import MODEL, Backend, StartBackend

CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
HI = [{"role": "user", "content": "hi"}]


def chat(**fields: object) -> dict:
    return {"model": MODEL, "messages": HI, **fields}


def completion(**fields: object) -> dict:
    return {"model": MODEL, "prompt": "hi", **fields}


def native(**sampling: object) -> dict:
    return {"text": "hi", "sampling_params": sampling}


def message_of(body: dict) -> str:
    error = body.get("error", body)
    return error if isinstance(error, str) else error["message"]


LONG = "x" * 600
BAD = [
    (CHAT, b"{not json", ["not valid JSON"]),
    (GENERATE, b'"text"', ["must be a JSON object", '"text"']),
    (COMPLETIONS, b"\xff\xfe", ["not valid JSON"]),
    (CHAT, {"model": MODEL}, ["messages is missing"]),
    (CHAT, chat(messages=[]), ["messages", "[]"]),
    (CHAT, chat(messages="hi"), ["messages", '"hi"']),
    (CHAT, chat(messages=[{"content": "hi"}]), ["messages.0.role is missing"]),
    (CHAT, chat(messages=[{"role": "user", "content": 5}]), ["messages.0.content", "5"]),
    (CHAT, chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), ["content.0.type", "image_url"]),
    (CHAT, chat(messages=[HI[0], {"role": "user"}]), ["messages.1.content is missing"]),
    (CHAT, chat(messages=[{"role": "assistant", "content": None}]), ["messages.0.content is missing"]),
    (CHAT, chat(messages=[{"role": 5, "content": "hi"}]), ["messages.0.role", "5"]),
    (CHAT, chat(messages=[{"role": None, "content": "hi"}]), ["messages.0.role is missing"]),
    (CHAT, chat(tool_choice="required"), ["tool_choice", "no tools"]),
    (CHAT, chat(tool_choice={"type": "function", "function": {"name": "f"}}), ["tool_choice", "no tools"]),
    (CHAT, chat(max_tokens="5"), ["max_tokens", '"5"']),
    (CHAT, chat(stream="yes"), ["stream", '"yes"']),
    (CHAT, chat(stream=1), ["stream", "1"]),
    (CHAT, chat(temperature="0.5"), ["temperature", '"0.5"']),
    (CHAT, chat(temperature=True), ["temperature", "true"]),
    (CHAT, chat(stream=True, stream_options={"include_usage": "yes"}), ["stream_options", '"yes"']),
    (COMPLETIONS, completion(n=1.5), ["n:", "1.5"]),
    (COMPLETIONS, completion(prompt=[1, True]), ["prompt", "[1,true]"]),
    (COMPLETIONS, completion(prompt=[1, "a"]), ["prompt", "integer"]),
    (COMPLETIONS, completion(prompt=[1, 10**30]), ["vocabulary"]),
    (GENERATE, native(max_new_tokens="5"), ["max_new_tokens", '"5"']),
    (GENERATE, native(ignore_eos="true"), ["ignore_eos", '"true"']),
    (CHAT, chat(max_tokens=-1), ["max_tokens", "-1"]),
    (CHAT, chat(max_completion_tokens=0), ["max_completion_tokens", "0"]),
    (CHAT, chat(max_tokens="many"), ["max_tokens", '"many"']),
    (CHAT, chat(temperature=-1), ["temperature", "-1"]),
    (CHAT, chat(top_p=0), ["top_p", "0"]),
    (CHAT, chat(n=0), ["n", "0"]),
    (CHAT, chat(n=10**9), ["n:", "1000000000"]),
    (CHAT, chat(stop=5), ["stop", "5"]),
    (CHAT, chat(stop=["a"] * 33), ["stop", "32"]),
    (CHAT, chat(stream="perhaps"), ["stream", '"perhaps"']),
    (CHAT, chat(messages=[{"role": "user", "content": LONG}]), ["The input (618 tokens)", "(512 tokens)"]),
    (CHAT, chat(max_tokens=510), ["maximum context length of 512 tokens", "510"]),
    (CHAT, chat(continue_final_message=True), ["continue_final_message", "'user'"]),
    (CHAT, chat(chat_template_kwargs={"refuse": True}), ["this template refuses"]),
    (COMPLETIONS, {"model": MODEL}, ["prompt is missing"]),
    (COMPLETIONS, completion(prompt=""), ["prompt is empty"]),
    (COMPLETIONS, completion(prompt=[]), ["prompt", "[]"]),
    (COMPLETIONS, completion(prompt=["ok", ""]), ["prompt is empty"]),
    (COMPLETIONS, completion(prompt=[[], [1]]), ["prompt is empty"]),
    (COMPLETIONS, completion(prompt=[1, -3]), ["token id -3"]),
    (COMPLETIONS, completion(prompt=[99_999]), ["token id 99999", "50000"]),
    (COMPLETIONS, completion(prompt=7), ["prompt", "7"]),
    (COMPLETIONS, completion(max_tokens=-2), ["max_tokens", "-2"]),
    (COMPLETIONS, completion(prompt=LONG), ["The input (600 tokens)"]),
    (GENERATE, {}, ["text or input_ids"]),
    (GENERATE, {"text": "a", "input_ids": [1]}, ["text or input_ids"]),
    (GENERATE, {"text": ""}, ["empty"]),
    (GENERATE, {"text": []}, ["[]"]),
    (GENERATE, {"input_ids": []}, ["empty"]),
    (GENERATE, {"input_ids": [1.5]}, ["input_ids", "1.5"]),
    (GENERATE, {"text": 3}, ["text", "3"]),
    (GENERATE, {"text": ["a", "b"], "rid": ["x"]}, ["rid", "1", "2"]),
    (GENERATE, {"text": ["a", "b"], "sampling_params": [{}]}, ["sampling_params", "1", "2"]),
    (GENERATE, native(max_new_tokens=-1), ["max_new_tokens", "-1"]),
    (GENERATE, native(max_new_tokens=600), ["maximum context length"]),
    (GENERATE, native(min_new_tokens=9, max_new_tokens=3), ["min_new_tokens", "9"]),
    (GENERATE, native(top_k=0), ["top_k", "0"]),
    (GENERATE, native(temperature="hot"), ["sampling_params.temperature", '"hot"']),
    (GENERATE, native(repetition_penalty=3), ["repetition_penalty", "3"]),
    (GENERATE, {"text": "a", "sampling_params": 4}, ["sampling_params", "4"]),
    (GENERATE, {"text": ["a", "b"], "rid": ["x", "x"]}, ["rid", "'x'"]),
    (GENERATE, {"text": "a", "priority": 10**30}, ["priority", str(10**30)]),
    (GENERATE, b'{"text": ' + b"[" * 3000 + b"]" * 3000 + b"}", ["nested too deeply"]),
    (GENERATE, b'{"text": "a", "sampling_params": {"temperature": 1e999}}', ["not valid JSON"]),
    ("/abort_request", {"rid": 5}, ["rid", "5"]),
    ("/flush_cache?timeout=soon", {}, ["timeout", "'soon'"]),
    ("/flush_cache?timeout=nan", {}, ["timeout", "'nan'"]),
    ("/flush_cache?timeout=inf", {}, ["timeout", "'inf'"]),
    ("/flush_cache?timeout=-1", {}, ["timeout", "'-1'"]),
]
# Ranges hold in the types that the scheduler computes with: float32, int32, 64 bits.
EXTREMES = [
    ("top_k", 2**31, "2147483648"),
    ("top_k", 2**40, "1099511627776"),
    ("top_k", -2, "-2"),
    ("top_p", 1e-50, "1e-50"),
    ("top_p", 1e-38, "1e-38"),
    ("min_p", -1e-50, "-1e-50"),
    ("repetition_penalty", 1e-38, "1e-38"),
    ("repetition_penalty", 1e-50, "1e-50"),
    ("temperature", 1e300, "1e+300"),
    ("frequency_penalty", 1e300, "1e+300"),
    ("presence_penalty", -2.1, "-2.1"),
    ("stop_token_ids", [-1], "-1"),
    ("stop_token_ids", [5, 99_999_999_999], "99999999999"),
    ("stop_token_ids", [10**30], str(10**30)),
    ("max_new_tokens", 10**30, str(10**30)),
    ("min_new_tokens", 10**30, str(10**30)),
    ("n", 10**30, str(10**30)),
]
SEEDS = [
    (GENERATE, "sampling_seed", lambda seed: native(sampling_seed=seed)),
    (CHAT, "seed", lambda seed: chat(seed=seed)),
]
# The field that the client sent is the one to blame.
PARAMS = [
    (CHAT, chat(temperature=-1), "temperature", "temperature must be between 0"),
    (CHAT, chat(min_tokens=9, max_tokens=3), "min_tokens", "min_tokens must be between 0 and max_tokens, got 9"),
    (CHAT, chat(max_tokens=510), "max_tokens", "maximum context length"),
    (CHAT, chat(max_completion_tokens=510), "max_completion_tokens", "maximum context length"),
    (CHAT, chat(min_tokens=9, max_completion_tokens=3), "min_tokens", "between 0 and max_completion_tokens, got 9"),
    (CHAT, chat(messages=[{"role": "user", "content": LONG}]), "messages", "The input (618 tokens)"),
    (CHAT, chat(chat_template_kwargs={"refuse": True}), "messages", "The chat template refuses these messages: "),
    (COMPLETIONS, completion(prompt=[99_999]), "prompt", "token id 99999"),
    (COMPLETIONS, completion(prompt=LONG), "prompt", "The input (600 tokens)"),
    (COMPLETIONS, completion(min_tokens=99), "min_tokens", "min_tokens must be between 0 and max_tokens, got 99"),
    (COMPLETIONS, completion(stop=[""]), "stop", "stop must be at most 32 non-empty strings"),
]
BAD_CONSTRAINTS = [
    (CHAT, chat(response_format={"type": "xml"}), "response_format", "got 'xml'"),
    (CHAT, chat(response_format="json"), "response_format", "must be an object, got 'json'"),
    (CHAT, chat(response_format={"type": "json_schema"}), "response_format", "needs json_schema.schema"),
    (CHAT, chat(regex="a", ebnf="root ::= 'a'"), "ebnf", "only one constraint can hold for an output"),
    (CHAT, chat(regex="("), "regex", "regex cannot be"),
    (CHAT, chat(guided_choice=[]), "guided_choice", "must be a list of texts, got []"),
    (CHAT, chat(structured_outputs={"yaml": "x"}), "structured_outputs.yaml", "structured_outputs.yaml is unknown"),
    (COMPLETIONS, completion(guided_json="{"), "json_schema", "json_schema cannot be read"),
    (COMPLETIONS, completion(structured_outputs=["x"]), "structured_outputs", "must be an object"),
]
BAD_NATIVE_CONSTRAINTS = [
    (native(json_schema="["), "json_schema cannot be read"),
    (native(regex="a", ebnf="b"), "only one of json_schema, regex, ebnf, structural_tag"),
    (native(stop_regex="(a"), "stop_regex cannot be read"),
    (native(stop_regex=["a"] * 33), "stop_regex must be at most 32"),
    (native(stop_regex="(?:(?:a){99}){99}"), "stop_regex repeats too much"),
]
NOT_YET = [
    (CHAT, chat(lora_path="x"), "lora_path"),
    (COMPLETIONS, completion(suffix="x"), "suffix"),
    (GENERATE, {"text": "a", "image_data": ["x"]}, "image_data"),
    (GENERATE, native(beam_width=2), "beam_width"),
    (COMPLETIONS, completion(allowed_token_ids=[1]), "allowed_token_ids"),
    (CHAT, chat(documents=[{"text": "x"}]), "documents"),
]
HARMLESS = [
    (CHAT, chat(logprobs=False, top_logprobs=None, response_format={"type": "text"}, logit_bias={}, max_tokens=1)),
    (CHAT, chat(tools=[{"type": "function"}], tool_choice="none", max_tokens=1)),
    (CHAT, chat(tools=[], stop=None, n=None, temperature=None, stream_options=None, max_tokens=1)),
    (COMPLETIONS, completion(echo=False, suffix="", best_of=1, logprobs=None)),
    (GENERATE, {"text": "a", "return_logprob": False, "lora_path": None, "image_data": []}),
]


@pytest.mark.parametrize(("path", "body", "told"), BAD)
async def test_bad_input(backend: Backend, path: str, body: dict | bytes, told: list[str]) -> None:
    content = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = await backend.http.post(path, **content)
    assert response.status_code == 400, response.text
    answer = response.json()
    assert all(part in message_of(answer) for part in told), answer
    if path.startswith("/v1/"):
        assert answer["object"] == "error"
        assert answer["code"] == 400
    assert backend.engine.received == []


@pytest.mark.parametrize(("field", "value", "shown"), EXTREMES)
async def test_numbers_beyond_the_schedulers_types(backend: Backend, field: str, value: object, shown: str) -> None:
    response = await backend.http.post(GENERATE, json=native(**{field: value}))
    assert response.status_code == 400, response.text
    told = message_of(response.json())
    assert ("max_tokens" if field == "max_new_tokens" else field) in told or "token count" in told
    assert shown in told
    assert backend.engine.received == []


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 10**30])
@pytest.mark.parametrize(("path", "field", "body"), SEEDS)
async def test_seeds_beyond_64_bits(
    backend: Backend, path: str, field: str, body: Callable[[int], dict], seed: int
) -> None:
    response = await backend.http.post(path, json=body(seed))
    assert response.status_code == 400, response.text
    assert message_of(response.json()) == f"{field} must be an integer of 64 bits, got {seed}"


@pytest.mark.parametrize(("path", "body", "param", "told"), PARAMS)
async def test_the_field_that_the_client_sent_is_named(
    backend: Backend, path: str, body: dict, param: str, told: str
) -> None:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["param"] == param
    assert told in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, chat()), (COMPLETIONS, completion()), (GENERATE, native()), ("/tokenize", {"prompt": "x"})],
)
async def test_text_for_a_server_without_a_tokenizer(start_backend: StartBackend, path: str, body: dict) -> None:
    async with start_backend(skip_tokenizer_init=True) as backend:
        response = await backend.http.post(path, json=body)
        assert response.status_code == 400, response.text
        assert "--skip-tokenizer-init: give token ids" in message_of(response.json())


async def test_stop_strings_for_a_server_without_a_tokenizer(start_backend: StartBackend) -> None:
    async with start_backend(skip_tokenizer_init=True) as backend:
        body = {"input_ids": [20, 21], "sampling_params": {"max_new_tokens": 2}}
        assert (await backend.http.post(GENERATE, json=body)).status_code == 200
        body["sampling_params"]["stop"] = ["x"]
        response = await backend.http.post(GENERATE, json=body)
        assert response.status_code == 400
        assert "--skip-tokenizer-init" in message_of(response.json())
        assert "stop_token_ids" in message_of(response.json())


@pytest.mark.parametrize("sampling", [
    {"top_k": 2**31 - 1}, {"top_p": 1e-30, "min_p": 1e-50}, {"repetition_penalty": 1e-30}, {"temperature": 1e-50},
    {"stop_token_ids": [2**31 - 1]}, {"sampling_seed": 2**64 - 1}, {"sampling_seed": -(2**63)},
])  # fmt: skip
async def test_the_last_numbers_that_are_served(backend: Backend, sampling: dict) -> None:
    response = await backend.http.post(GENERATE, json=native(**sampling, max_new_tokens=1))
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("path", "body", "field", "words"), BAD_CONSTRAINTS)
async def test_bad_constraints(backend: Backend, path: str, body: dict, field: str, words: str) -> None:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 400
    assert response.json()["param"] == field
    assert words in message_of(response.json())


@pytest.mark.parametrize(("body", "words"), BAD_NATIVE_CONSTRAINTS)
async def test_bad_constraints_in_sampling_params(backend: Backend, body: dict, words: str) -> None:
    response = await backend.http.post(GENERATE, json=body)
    assert response.status_code == 400
    assert words in message_of(response.json())


@pytest.mark.parametrize(("path", "body", "field"), NOT_YET)
async def test_not_supported_yet(backend: Backend, path: str, body: dict, field: str) -> None:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 400
    assert message_of(response.json()).startswith(f"{field} is not supported yet")


@pytest.mark.parametrize(("path", "body"), HARMLESS)
async def test_values_that_ask_for_what_happens_anyway(backend: Backend, path: str, body: dict) -> None:
    response = await backend.http.post(path, json=body)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", ["/nope", "/v1/nope"])
async def test_an_unknown_route_is_a_404_in_json(backend: Backend, path: str) -> None:
    response = await backend.http.get(path)
    assert response.status_code == 404
    assert path in message_of(response.json())


@pytest.mark.parametrize("path", [GENERATE, CHAT])
async def test_a_wrong_method_is_a_405_in_json(backend: Backend, path: str) -> None:
    response = await backend.http.delete(path)
    assert response.status_code == 405
    assert "POST" in response.headers["allow"]
    assert "POST" in message_of(response.json())


async def test_a_body_over_the_limit(start_backend: StartBackend) -> None:
    async with start_backend(max_body_bytes=1000) as backend:
        response = await backend.http.post(GENERATE, json={"text": "x" * 2000})
        assert response.status_code == 413
        assert "1000 bytes" in message_of(response.json())
