"""Large integers of a JSON schema: the library reads numbers as floats, which are not exact beyond 53 bits.

Limits are moved inwards to a float, so that what is written keeps to them. A value that is asked for by itself can only
be refused.
"""

from __future__ import annotations

import math
from typing import Any

from backend.grammar.errors import GrammarError
from backend.grammar.integers import LARGEST

_EXACT = 2**53  # integers below are floats, and so are their neighbours
_VALUES = ("const", "enum")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")  # of schemas by any names
_LOWER = ("minimum", "exclusiveMinimum")
_UPPER = ("maximum", "exclusiveMaximum")
_SAID_ONLY = ("default", "examples", "example")


def with_exact_integers(schema: Any) -> Any:
    """A copy whose large limits are floats. Raises GrammarError for an integer that no float is equal to."""
    if isinstance(schema, list):
        return [with_exact_integers(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    counts = schema.get("type") != "number"
    return {key: _exact(key, value, counts) for key, value in schema.items() if key not in _SAID_ONLY}


def _exact(key: str, value: Any, counts: bool) -> Any:
    if key in _VALUES:
        _check(value)
        return value
    if key in _MAPS and isinstance(value, dict):
        return {name: with_exact_integers(part) for name, part in value.items()}
    if key in (*_LOWER, *_UPPER) and isinstance(value, int | float) and abs(value) >= _EXACT:
        return _limit(key, value, counts)
    return with_exact_integers(value)


def _limit(key: str, value: float, counts: bool) -> float:
    beyond = math.inf if key in _LOWER else -math.inf
    found = _inwards(value, beyond)
    if counts:
        found = _counted(key, found)
    if key.startswith("exclusive"):
        found = math.nextafter(found, beyond)
    return int(found) if abs(found) <= LARGEST else found  # integers are read exactly, long floats nearly so


def _counted(key: str, limit: float) -> float:
    """``limit`` of integers, which the library counts with 64 bits."""
    if abs(limit) <= LARGEST:
        return limit
    if (limit > 0) == (key in _LOWER):
        raise GrammarError(f"json_schema: {key} {limit:g} leaves no integer of 64 bits")
    return math.copysign(LARGEST, limit)


def _inwards(limit: float, beyond: float) -> float:
    """The first float from ``limit`` on in the direction of ``beyond``."""
    found = _as_float(limit)
    outside = found < limit if beyond > 0 else found > limit
    return math.nextafter(found, beyond) if outside else found


def _check(value: Any) -> None:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check(each)
    elif isinstance(value, int) and _as_float(value) != value:
        raise GrammarError(f"json_schema: {value} cannot be told from its neighbours (53 bits can); ask for a text")


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise GrammarError("json_schema: a number in it is too large for any float") from None
