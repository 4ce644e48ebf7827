"""Sampling parameters for requests that do not say: the model's own, from ``generation_config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.prompt.files import read_json
from backend.prompt.source import ModelSource

_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def model_sampling_defaults(source: ModelSource) -> dict[str, float]:
    """What the model's makers recommend, in the API's terms; empty when they say nothing.

    ``do_sample: false`` means greedy, and ``top_k: 0`` means all, as in ``transformers``. Raises ModelError.
    """
    config = (read_json(source.path / "generation_config.json") or {}) if source.kind == "folder" else {}
    if config.get("do_sample") is False:
        return {"temperature": 0.0}
    found = {name: config[name] for name in _NAMES if _is_number(config.get(name))}
    if "top_k" in found:
        found["top_k"] = int(found["top_k"]) or -1
    return found


def with_defaults(data: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A body in which missing (or null) fields have their defaults."""
    return {**defaults, **{name: value for name, value in data.items() if value is not None}}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
