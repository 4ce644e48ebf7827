"""What a request asks its output to look like: SGLang's fields, OpenAI's ``response_format``, vLLM's ``guided_*``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backend.api.errors import SchemaError
from backend.grammar import GrammarError, GrammarSpec, spec_from_fields, spec_from_response_format
from backend.grammar.spec import FIELDS, make_spec

VLLM_KINDS = {"json": "json_schema", "regex": "regex", "grammar": "ebnf", "structural_tag": "structural_tag"}
OPENAI_FIELDS = (*FIELDS, "response_format", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


def native_constraint(sampling_params: Mapping[str, Any]) -> GrammarSpec | None:
    """The constraint inside ``sampling_params``. Raises :class:`SchemaError`."""
    try:
        return spec_from_fields(sampling_params)
    except GrammarError as error:
        raise SchemaError(str(error), param=_named(str(error), sampling_params)) from None


def openai_constraint(data: Mapping[str, Any]) -> GrammarSpec | None:
    """The one constraint among the fields of a body. Raises :class:`SchemaError`, also when there are several."""
    found: dict[str, GrammarSpec] = {}
    for field, value in _asked(data).items():
        try:
            spec = _spec(field, value)
        except GrammarError as error:
            raise SchemaError(str(error), param=field) from None
        if spec is not None:
            found[field] = spec
    if len(found) > 1:
        names = ", ".join(found)
        raise SchemaError(f"only one constraint can hold for an output, got {names}", param=list(found)[1])
    return next(iter(found.values()), None)


def calls_constraint(tools: Sequence[Mapping[str, Any]], *, several: bool) -> GrammarSpec:
    """One call or, with ``several``, any number of calls of ``tools``, as a JSON list of names and parameters."""
    calls = [_call_schema(tool["function"]) for tool in tools]
    schema: dict[str, Any] = {
        "type": "array",
        "minItems": 1,
        "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
    }
    if not several:
        schema["maxItems"] = 1
    try:
        return make_spec("json_schema", schema)
    except GrammarError as error:
        raise SchemaError(f"tools: {error}", param="tools") from None


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": [function["name"]]},
            "parameters": function.get("parameters") or {"type": "object"},
        },
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _asked(data: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that are given, those of ``structured_outputs`` among them."""
    asked = {field: data[field] for field in OPENAI_FIELDS if data.get(field) not in (None, "")}
    nested = data.get("structured_outputs")
    if nested in (None, {}):
        return asked
    if not isinstance(nested, Mapping):
        raise SchemaError(f"structured_outputs must be an object, got {nested!r}", param="structured_outputs")
    return asked | {f"structured_outputs.{name}": value for name, value in nested.items() if value not in (None, "")}


def _spec(field: str, value: Any) -> GrammarSpec | None:
    if field == "response_format":
        if not isinstance(value, Mapping):
            raise GrammarError(f"response_format must be an object, got {value!r}")
        return spec_from_response_format(value)
    if field in FIELDS:
        return make_spec(field, value)
    kind = field.removeprefix("guided_").removeprefix("structured_outputs.")
    if kind == "choice":
        return make_spec("regex", _choice(field, value))
    if kind == "json_object":
        return make_spec("json_schema", {"type": "object"}) if value else None
    if kind not in VLLM_KINDS:
        raise GrammarError(f"{field} is unknown; known: {', '.join((*VLLM_KINDS, 'choice', 'json_object'))}")
    return make_spec(VLLM_KINDS[kind], value)


def _choice(field: str, value: Any) -> str:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise GrammarError(f"{field} must be a list of texts, got {json.dumps(value)[:100]}")
    return "|".join(re.escape(each) for each in value)


def _named(message: str, fields: Mapping[str, Any]) -> str | None:
    return next((field for field in FIELDS if field in fields and field in message), None)
