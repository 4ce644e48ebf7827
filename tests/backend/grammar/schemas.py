"""Random JSON schemas of the kinds that clients write."""

from __future__ import annotations

import random
from typing import Any

WORDS = ["name", "age", "tags", "is_open", "größe", "a b", 'quo"te', "value"]


def random_schema(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema; at depth 0 a simple one."""
    simple = [_string, _number, _constant, _enum, _pattern]
    kinds = simple if depth == 0 else [*simple, _object, _object, _array, _choice, _nullable]
    return chance.choice(kinds)(chance, depth)


def random_object_schema(seed: int) -> dict[str, Any]:
    chance = random.Random(seed)
    return _object(chance, 3)


def _string(chance: random.Random, _: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if chance.random() < 0.5:
        schema["maxLength"] = chance.randint(1, 12)
        schema["minLength"] = chance.randint(0, schema["maxLength"])
    return schema


def _number(chance: random.Random, _: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": chance.choice(["integer", "number"])}
    if chance.random() < 0.7:
        schema["minimum"] = chance.randint(-50, 50)
        schema["maximum"] = schema["minimum"] + chance.randint(1, 1000)
    return schema


def _constant(chance: random.Random, _: int) -> dict[str, Any]:
    return {"const": chance.choice([None, True, 3, "x\ny", [1, "a"], {"k": 1}])}


def _enum(chance: random.Random, _: int) -> dict[str, Any]:
    return {"enum": chance.sample(["red", "green", 'b"lue', 1, 2.5, None, False], chance.randint(1, 5))}


def _pattern(chance: random.Random, _: int) -> dict[str, Any]:
    return {"type": "string", "pattern": chance.choice([r"^\d{3}-\d{4}$", r"^[a-f]{2,5}$", r"^(yes|no|maybe)$"])}


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(WORDS, chance.randint(0, 4))
    properties = {name: random_schema(chance, depth - 1) for name in names}
    required = [name for name in names if chance.random() < 0.6]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _array(chance: random.Random, depth: int) -> dict[str, Any]:
    least = chance.randint(0, 2)
    return {
        "type": "array",
        "items": random_schema(chance, depth - 1),
        "minItems": least,
        "maxItems": least + chance.randint(0, 3),
    }


def _choice(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [random_schema(chance, depth - 1) for _ in range(chance.randint(1, 3))]}


def _nullable(chance: random.Random, depth: int) -> dict[str, Any]:
    return {"type": [chance.choice(["string", "integer", "boolean"]), "null"]}
