"""Which constraints xgrammar holds exactly, found by trying it: what it does not know it leaves out without an error.

A schema counts when every keyword in it is one that xgrammar 0.2 was seen to keep in that place; an expression when it
means there what it means to Python's ``re``. All others are for llguidance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$comment", "$defs", "definitions"})
_KEYWORDS = {
    "string": frozenset(),  # with a length it lets control characters in, which JSON does not
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "object": frozenset({"properties", "required", "additionalProperties"}),
}
_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|[.^$]|[^\\\[.^$]+", re.DOTALL)
_CLEAR_ESCAPES = frozenset("dwsnrtfv\\.^$|?*+()[]{}-/\"' ")


def exact_schema(schema: Any) -> bool:
    """Whether xgrammar lets exactly such outputs pass as fit ``schema`` (or fewer)."""
    definitions = _definitions(schema)
    return all(_exact(each, definitions) for each in [schema, *definitions.values()])


def exact_regex(pattern: str) -> str | None:
    """``pattern`` as xgrammar understands it; None where it means something else to it."""
    pieces = _PIECE.findall(pattern)
    if "".join(pieces) != pattern:
        return None
    last = len(pieces) - 1
    for place, piece in enumerate(pieces):
        if (piece == "^" and place > 0) or (piece == "$" and place < last) or not _clear(piece):
            return None
    return "".join(r"[^\n]" if piece == "." else piece for piece in pieces)


def exact_tags(form: Any, control_tokens: Collection[str]) -> dict[str, Any] | None:
    """SGLang's structures as xgrammar 0.2 wants them, or its own ``format``. None where it would not hold exactly that.

    Control tokens cannot be told from the letters that spell them.
    """
    if any(token in json.dumps(form, ensure_ascii=False) for token in control_tokens) or not isinstance(form, Mapping):
        return None
    if "format" in form:
        schemas = list(_schemas(form["format"]))
        return dict(form) if all(map(exact_schema, schemas)) else None
    structures, triggers = form.get("structures"), form.get("triggers")
    if not isinstance(structures, list) or not isinstance(triggers, list):
        return None
    tags = [_tag(each) for each in structures]
    if not all(tags):
        return None
    return {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": triggers, "tags": tags}}


def _tag(structure: Any) -> dict[str, Any] | None:
    if not isinstance(structure, Mapping):
        return None
    schema = structure.get("schema")
    schema = True if schema is None else schema
    if not exact_schema(schema):
        return None
    content = {"type": "json_schema", "json_schema": schema}
    return {"type": "tag", "begin": structure.get("begin"), "content": content, "end": structure.get("end")}


def _schemas(form: Any) -> Iterator[Any]:
    """All schemas within a ``format``."""
    if isinstance(form, list):
        for each in form:
            yield from _schemas(each)
    elif isinstance(form, Mapping):
        for key, each in form.items():
            yield from [each] if key == "json_schema" else _schemas(each)


def _clear(piece: str) -> bool:
    escapes = re.findall(r"\\(.)", piece, re.DOTALL)
    if not _CLEAR_ESCAPES.issuperset(escapes):
        return False
    if piece.startswith("["):
        hidden = "[:" in piece or "&&" in piece or piece in ("[]", "[^]")
        return not hidden and not (piece.startswith("[^") and not {"d", "w", "s"}.isdisjoint(escapes))
    return True


def _definitions(schema: Any) -> dict[str, Any]:
    """The named parts of ``schema``, by what refers to them."""
    found: dict[str, Any] = {}
    for key in ("$defs", "definitions"):
        parts = schema.get(key) if isinstance(schema, Mapping) else None
        if isinstance(parts, Mapping):
            found |= {f"#/{key}/{name}": part for name, part in parts.items()}
    return found


def _exact(schema: Any, definitions: Mapping[str, Any]) -> bool:
    if not isinstance(schema, Mapping):
        return schema is True
    asked = schema.keys() - _NOTES
    if not asked:
        return True
    if asked == {"$ref"}:
        return schema["$ref"] in definitions
    if asked == {"anyOf"}:
        return isinstance(schema["anyOf"], list) and all(_exact(each, definitions) for each in schema["anyOf"])
    if asked <= {"enum", "const", "type"} and asked & {"enum", "const"}:
        return _exact_values(schema)
    kind = schema.get("type")
    if not isinstance(kind, str) or not asked - {"type"} <= _KEYWORDS.get(kind, frozenset()):
        return False
    if kind == "object":
        return _exact_object(schema, definitions)
    return _exact(schema.get("items", True), definitions)


def _exact_values(schema: Mapping[str, Any]) -> bool:
    """Texts only: what else a type says of a value is not looked at."""
    values = schema.get("enum", [schema.get("const")])
    one_list = not {"enum", "const"} <= schema.keys() and isinstance(values, list)
    return one_list and schema.get("type", "string") == "string" and all(isinstance(each, str) for each in values)


def _exact_object(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> bool:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return False
    others = schema.get("additionalProperties", True)
    known = all(isinstance(name, str) and name in properties for name in required)
    return (
        known
        and all(_exact(each, definitions) for each in properties.values())
        and (others is False or _exact(others, definitions))
    )
