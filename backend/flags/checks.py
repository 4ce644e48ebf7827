"""Ranges of flag values, with the words that an error uses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Check(NamedTuple):
    """What a value must be: ``ok`` tests it, ``wanted`` completes the sentence "must be ..."."""

    ok: Callable[[Any], bool]
    wanted: str


def _is_json_object(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except json.JSONDecodeError:
        return False


AT_LEAST_ONE = Check(lambda value: value >= 1, "at least 1")
NOT_NEGATIVE = Check(lambda value: 0 <= value < math.inf, "at least 0")
POSITIVE = Check(lambda value: 0 < value < math.inf, "greater than 0 and finite")
FRACTION = Check(lambda value: 0 < value <= 1, "greater than 0 and at most 1")
PORT = Check(lambda value: 0 <= value <= 65535, "a port between 0 (any free one) and 65535")
JSON_OBJECT = Check(_is_json_object, 'a JSON object such as {"rope_theta": 1000000}')
MODEL_NAME = Check(lambda value: str(value).strip() != "", "a folder, a GGUF file or a hub name ORG/NAME")
