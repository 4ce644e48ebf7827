"""Integers without a range get one: a small model that has begun to write zeros would write them until its tokens end.

JSON itself sets no limit, most readers of it do: 64 bits. What a schema says of its integers stays as it is.
"""

from __future__ import annotations

from typing import Any

LARGEST = 2**63 - 1024  # of 64 bits; a float, which llguidance reads limits as
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_SAYS_MORE = (*_LIMITS, "multipleOf", "enum", "const", "format", "$ref", "allOf", "anyOf", "oneOf", "not")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties")


def with_ranges(schema: Any) -> Any:
    """A copy of a JSON schema, whose integers have 64 bits where nothing else is said of them.

    Parts of ``allOf`` and of negations stay as they are: there a limit would mean something else.
    """
    if not isinstance(schema, dict):
        return schema
    found = dict(schema)
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "integer" in kinds and "number" not in kinds and not any(word in schema for word in _SAYS_MORE):
        found |= {"minimum": -LARGEST, "maximum": LARGEST}
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            found[key] = {name: with_ranges(part) for name, part in schema[key].items()}
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            found[key] = [with_ranges(part) for part in schema[key]]
    for key in _SCHEMAS:
        if key in schema:
            found[key] = with_ranges(schema[key])
    return found
