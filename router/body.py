"""What placement needs of a request, found in its body without rewriting it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import msgspec
from aiohttp import web

from policies.policy import RouteRequest
from router.conversation import Join, is_stand_in
from router.envelope import ABSENT, DECODER, Envelope
from router.errors import Refusal
from router.long_strings import LongStrings, cut_out
from router.namespace import joined
from router.prompt_text import PromptText

INFERENCE_ROUTES = frozenset(
    {
        "/generate",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/rerank",
        "/rerank",
        "/v2/rerank",
        "/v1/score",
        "/v1/classify",
        "/classify",
        "/encode",
    }
)
TARGET_HEADER = "x-smg-target-worker"
ROUTING_KEY_HEADERS = ("x-smg-routing-key", "x-sgl-routing-key", "x-session-id")
# No UTF-8 text has these bytes.
_IDS = b"\xfe"  # starts a prompt given as token ids, four bytes each
_NEXT = b"\xff"  # between the prompts of a batch
_SEVERAL = re.compile(rb"\[\s*[\[\"]")  # how a list of prompts begins; a list of ids begins otherwise


class Form(Enum):
    """What a prompt's text is, towards a tokenizer."""

    OTHER = auto()  # nothing that the model reads as it is
    CHAT = auto()  # rendered by the model's template, which brings its special tokens
    PLAIN = auto()  # the model's special tokens are added
    IDS = auto()  # token ids after one byte, int32 each


@dataclass(slots=True)  # frozen ones take a microsecond more to make
class Facts:
    """``inference``: the body was understood as a prompt, so the request may be sent again elsewhere.

    ``prompts``: how many it has; the route's text is all of them in a row.
    """

    model: str = ""
    stream: bool = False
    inference: bool = False
    route: RouteRequest = field(default_factory=RouteRequest)
    form: Form = Form.OTHER
    prompts: int = 1


NO_FACTS = Facts()  # of a request without a body


def read_facts(
    path: str, headers: dict[str, str], body: bytes, prompt_text: PromptText, canonical: Callable[[str], str] = str
) -> Facts:
    """Facts of a POST to ``path``. Raises :class:`Refusal` (400) when an inference body is no JSON object.

    ``canonical`` gives the one name of a model that clients may leave out.
    A field of a wrong type is not judged here: the backend sees the original bytes and says what it thinks of them.
    """
    if path not in INFERENCE_ROUTES:
        return Facts(route=_of_headers(headers))
    if headers.get("content-encoding", "identity") != "identity":
        return Facts(
            inference=True, route=RouteRequest(routing_key=_header_key(headers), target=headers.get(TARGET_HEADER, ""))
        )
    envelope, text, tokens, prompts = _read(body, prompt_text)
    model = canonical(_word(envelope.model))
    route = RouteRequest(
        text=text,
        prompt_tokens=tokens if tokens is not None else prompt_text.tokens(model, text or body),
        model=model,
        namespace=_namespace(envelope),
        routing_key=_header_key(headers) or _word(envelope.routing_key) or _word(envelope.session_id),
        target=headers.get(TARGET_HEADER, ""),
    )
    form = _form(envelope, text)
    return Facts(
        model=model,
        stream=envelope.stream is True,
        inference=True,
        route=route,
        form=form,
        prompts=prompts,
    )


_Found = tuple[Envelope, bytes, int | None, int]


def _read(body: bytes, prompt_text: PromptText) -> _Found:
    """(what placement reads, the prompt's text, its exact number of tokens or None, how many prompts it has).

    Raises :class:`Refusal`.

    Fields that are read late fail late: a number out of range or a byte that is not UTF-8 may be anywhere.
    """
    try:
        strings = None if prompt_text.renders else cut_out(body)
        found = None if strings is None else _read_rest(strings, prompt_text)
        return found or _read_json(body, prompt_text, b"".join)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"The body is not a JSON object: {error}", code="invalid_json") from None
    except UnicodeDecodeError:
        raise Refusal(400, f"The body is not UTF-8: {_not_utf8(body)}", code="invalid_json") from None
    except RecursionError:
        raise Refusal(400, "The body is nested too deeply.", code="invalid_json") from None


def _read_rest(strings: LongStrings, prompt_text: PromptText) -> _Found | None:
    """The same; None when a long string is no text of the prompt, or there is a fault, which the whole body tells."""
    try:
        found = _read_json(strings.rest, prompt_text, strings.join)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if strings.left else found


def _read_json(body: bytes, prompt_text: PromptText, join: Join) -> _Found:
    envelope = DECODER.decode(body)
    return envelope, *_prompt(envelope, prompt_text, join), _count(envelope)


def _not_utf8(body: bytes) -> str:
    """Which byte of ``body`` is wrong, and where."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return f"byte {error.start} is 0x{body[error.start]:02x}"
    return "a string in it"


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises :class:`Refusal` (413) as soon as it is known to be over ``limit`` bytes."""
    too_large = Refusal(413, f"The body is larger than {limit} bytes.", code="body_too_large", close=True)
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise too_large
    except web.RequestPayloadError as error:
        raise Refusal(400, f"The body cannot be read: {error}", code="invalid_body", close=True) from None
    return bytes(body)


def _prompt(envelope: Envelope, prompt_text: PromptText, join: Join) -> tuple[bytes, int | None]:
    """(text, exact number of tokens or None) of whichever prompt field the body has."""
    if isinstance(messages := envelope.messages, list):
        system = _value(envelope.system)
        whole = [{"role": "system", "content": system}, *messages] if system else messages
        arguments = _value(envelope.chat_template_kwargs)
        continues = envelope.continue_final_message is True
        tools = _value(envelope.tools)
        variables = arguments if isinstance(arguments, dict) else {}
        return prompt_text.chat(whole, tools, variables, continues, join), None
    if isinstance(ids := _value(envelope.input_ids), list):
        return _of_ids(ids)
    for raw in (envelope.text, envelope.prompt):
        if (value := _value(raw)) is not None:
            return _of_plain(value, join)
    if (value := _value(envelope.input)) is not None:
        items = value if isinstance(value, list) else [value]
        return prompt_text.plain([_value(envelope.instructions), *items], _value(envelope.tools), join), None
    return b"", None


def _form(envelope: Envelope, text: bytes) -> Form:
    if text.startswith(_IDS):
        return Form.IDS
    if envelope.messages is not None:
        return Form.OTHER if is_stand_in(text) else Form.CHAT
    alone = bytes(envelope.text)[:1] == b'"' or bytes(envelope.prompt)[:1] == b'"'
    return Form.PLAIN if alone and text else Form.OTHER


def _count(envelope: Envelope) -> int:
    """How many prompts the body has."""
    for raw in (envelope.input_ids, envelope.text, envelope.prompt):
        if raw is not ABSENT and _SEVERAL.match(raw):
            return len(_value(raw))
    return 1


def _of_plain(value: Any, join: Join) -> tuple[bytes, int | None]:
    if isinstance(value, str):
        return join([value.encode("utf-8", "surrogatepass")]), None
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        texts = [part for item in value for part in (_NEXT, item.encode("utf-8", "surrogatepass"))]
        return join(texts[1:]), None
    return _of_ids(value) if isinstance(value, list) else (b"", None)


def _of_ids(ids: list[Any]) -> tuple[bytes, int | None]:
    """One list of ids, or several: a batch is placed by all of its prompts in a row."""
    flat = [one for item in ids for one in item] if ids and all(isinstance(item, list) for item in ids) else ids
    if not flat or not all(type(one) is int and 0 <= one < 2**31 for one in flat):
        return b"", None
    return _IDS + array("i", flat).tobytes(), len(flat)


def _value(raw: msgspec.Raw) -> Any:
    return None if raw is ABSENT else msgspec.json.decode(raw)


def _namespace(envelope: Envelope) -> str:
    if envelope.lora_path is envelope.cache_salt is envelope.extra_key is None:
        return ""
    return joined([_word(envelope.lora_path), _word(envelope.cache_salt), _word(envelope.extra_key)])


def _of_headers(headers: dict[str, str]) -> RouteRequest:
    return RouteRequest(routing_key=_header_key(headers), target=headers.get(TARGET_HEADER, ""))


def _header_key(headers: dict[str, str]) -> str:
    for name in ROUTING_KEY_HEADERS:
        if value := headers.get(name):
            return value
    return ""


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""
