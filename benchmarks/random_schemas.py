"""JSON schemas of the kinds that clients write: random ones by seed, and a few by hand."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["name", "age", "tags", "is_open", "größe", "a b", 'quo"te', "value"]
Schema = dict[str, Any]


def random_object_schema(seed: int) -> Schema:
    """An object's schema; the same for the same seed."""
    return _object(random.Random(seed), 3)


def random_document_schema(seed: int) -> Schema:
    """As :func:`random_object_schema`, with what newer schemas have: definitions, tuples, formats, open objects."""
    chance = random.Random(seed)
    schema = _object(chance, 3)
    if chance.random() < 0.5:
        schema["$defs"] = {"node": _node(chance), "leaf": _schema(chance, 0)}
        schema["properties"]["tree"] = {"$ref": "#/$defs/node"}
        schema["properties"]["leaf"] = {"$ref": "#/$defs/leaf"}
        schema["required"] = [*schema["required"], chance.choice(["tree", "leaf"])]
    schema["properties"]["extra"] = chance.choice([_tuple, _format, _map, _both, _bounds])(chance)
    return schema


def _schema(chance: random.Random, depth: int) -> Schema:
    """A schema; at depth 0 a simple one."""
    simple = [_string, _number, _constant, _enum, _pattern]
    kinds = simple if depth == 0 else [*simple, _object, _object, _array, _choice, _nullable]
    return chance.choice(kinds)(chance, depth)


def _string(chance: random.Random, _: int) -> Schema:
    schema: Schema = {"type": "string"}
    if chance.random() < 0.5:
        schema["maxLength"] = chance.randint(1, 12)
        schema["minLength"] = chance.randint(0, schema["maxLength"])
    return schema


def _number(chance: random.Random, _: int) -> Schema:
    schema: Schema = {"type": chance.choice(["integer", "number"])}
    if chance.random() < 0.7:
        schema["minimum"] = chance.randint(-50, 50)
        schema["maximum"] = schema["minimum"] + chance.randint(1, 1000)
    return schema


def _constant(chance: random.Random, _: int) -> Schema:
    return {"const": chance.choice([None, True, 3, "x\ny", [1, "a"], {"k": 1}])}


def _enum(chance: random.Random, _: int) -> Schema:
    return {"enum": chance.sample(["red", "green", 'b"lue', 1, 2.5, None, False], chance.randint(1, 5))}


def _pattern(chance: random.Random, _: int) -> Schema:
    return {"type": "string", "pattern": chance.choice([r"^\d{3}-\d{4}$", r"^[a-f]{2,5}$", r"^(yes|no|maybe)$"])}


def _object(chance: random.Random, depth: int) -> Schema:
    names = chance.sample(WORDS, chance.randint(0, 4))
    properties = {name: _schema(chance, depth - 1) for name in names}
    required = [name for name in names if chance.random() < 0.6]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(chance: random.Random, depth: int) -> Schema:
    least = chance.randint(0, 2)
    items = _schema(chance, depth - 1)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + chance.randint(0, 3)}


def _choice(chance: random.Random, depth: int) -> Schema:
    return {"anyOf": [_schema(chance, depth - 1) for _ in range(chance.randint(1, 3))]}


def _nullable(chance: random.Random, depth: int) -> Schema:
    return {"type": [chance.choice(["string", "integer", "boolean"]), "null"]}


def _node(chance: random.Random) -> Schema:
    """A tree of definitions that refer to themselves."""
    return {
        "type": "object",
        "properties": {
            "value": _schema(chance, 0),
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 1},
        },
        "required": ["value"],
        "additionalProperties": False,
    }


def _tuple(chance: random.Random) -> Schema:
    items = [_schema(chance, 0) for _ in range(chance.randint(1, 3))]
    return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}


def _format(chance: random.Random) -> Schema:
    return {"type": "string", "format": chance.choice(["date", "time", "date-time", "uuid", "ipv4", "email"])}


def _map(chance: random.Random) -> Schema:
    return {"type": "object", "additionalProperties": _schema(chance, 0), "maxProperties": 2}


def _both(chance: random.Random) -> Schema:
    low = {"type": "object", "properties": {"low": _number(chance, 0)}, "required": ["low"]}
    high = {"properties": {"high": _string(chance, 0)}, "required": ["high"]}
    return {"allOf": [low, high]}


def _bounds(chance: random.Random) -> Schema:
    least = chance.randint(-9, 9)
    return {"type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": least + chance.randint(2, 99)}


HAND_WRITTEN: dict[str, Schema] = {
    "any object": {"type": "object"},
    "a list that refers to itself": {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    },
    "a tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"const": "x"}],
        "minItems": 2,
        "items": False,
    },
    "both of two": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
    "a date": {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}, "required": ["a"]},
    "texts in every script": {"enum": ["é", "日本語", "🙂", "\u2028", "tab\t", "back\\slash", '"', "</script>", ""]},
    "one of disjoint ones": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, kind: {"type": "integer", "maximum": 99, "minimum": 0}},
                "required": ["kind", kind],
                "additionalProperties": False,
            }
            for kind in ("circle", "square")
        ]
    },
    "a big enum": {"enum": [f"value number {number}" for number in range(3000)]},
    "wide": {
        "type": "object",
        "properties": {f"field_{number}": {"type": "boolean"} for number in range(60)},
        "required": [f"field_{number}" for number in range(60)],
        "additionalProperties": False,
    },
    "a const of everything": {"const": {"a": [1, 2.5, None, True, "x", {"b": []}], "c": {}}},
}
