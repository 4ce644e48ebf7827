"""A constraint as a client asked for it, found among the fields of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from backend.grammar.errors import GrammarError

MAX_BYTES = 256 * 1024
FIELDS = ("json_schema", "regex", "ebnf", "structural_tag")


class GrammarSpec(msgspec.Struct, frozen=True, array_like=True):
    """``kind`` is one of ``FIELDS``, or ``composed`` (the server's own making). Travels to the scheduler as it is.

    Two equal specs are the same grammar.
    """

    kind: str
    text: str  # the schema, the tags or the composition as JSON text, the expression, or the grammar

    @property
    def field(self) -> str | None:
        """What a client calls it; None for what the server composed."""
        return self.kind if self.kind in FIELDS else None

    @property
    def label(self) -> str:
        """What it is called in errors."""
        return self.field or "the constraint"


def spec_from_fields(fields: Mapping[str, Any]) -> GrammarSpec | None:
    """The constraint among SGLang's sampling fields; None when there is none. Raises GrammarError for several."""
    given = [name for name in FIELDS if fields.get(name) not in (None, "")]
    if not given:
        return None
    if len(given) > 1:
        raise GrammarError(f"only one of {', '.join(FIELDS)} can constrain an output, got {', '.join(given)}")
    return make_spec(given[0], fields[given[0]])


def spec_from_response_format(form: Mapping[str, Any]) -> GrammarSpec | None:
    """The constraint of OpenAI's ``response_format``; None for plain text."""
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return make_spec("json_schema", {"type": "object"})
    if kind == "json_schema":
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, Mapping) else None
        if schema is None:
            raise GrammarError("response_format of type json_schema needs json_schema.schema")
        return make_spec("json_schema", schema)
    if kind == "structural_tag":
        return make_spec("structural_tag", dict(form))
    raise GrammarError(f"response_format.type must be text, json_object, json_schema or structural_tag, got {kind!r}")


def make_spec(kind: str, value: Any) -> GrammarSpec:
    """``value`` as text, within the size limit. Raises GrammarError."""
    if isinstance(value, str):
        text = value
    elif kind in ("regex", "ebnf"):
        raise GrammarError(f"{kind} must be a text, got {type(value).__name__}")
    else:
        text = json.dumps(value, ensure_ascii=False)
    spec = GrammarSpec(kind, text)
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        raise GrammarError(f"{spec.label} has {size} bytes; at most {MAX_BYTES} are allowed")
    return spec
