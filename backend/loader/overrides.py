"""``--json-model-override-args``: keys that are read in place of those of a model's configuration."""

from __future__ import annotations

import json
from typing import Any

from backend.prompt.errors import ModelError

_FLAG = "--json-model-override-args"


def override(raw: dict[str, Any], text: str) -> dict[str, Any]:
    """``raw`` (a config.json) with the keys of the JSON object ``text`` in place of its own.

    Rotary parameters may be given as transformers 4 or 5 writes them, whichever ``raw`` has.
    """
    try:
        changes = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{_FLAG} is not valid JSON: {error}") from error
    if not isinstance(changes, dict):
        raise ModelError(f"{_FLAG} must be a JSON object, not {text}")
    for key in ("rope_parameters", "rope_scaling"):
        if not isinstance(changes.get(key), dict | None):
            raise ModelError(f"{_FLAG}: {key} must be an object, got {json.dumps(changes[key])}")
    return {**raw, **_rope(raw, changes), **changes} if changes else raw


def _rope(raw: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The old keys in ``changes`` as the ``rope_parameters`` that would otherwise hide them."""
    stored = raw.get("rope_parameters")
    if not isinstance(stored, dict) or "rope_parameters" in changes:
        return {}
    scaling, theta = changes.get("rope_scaling"), changes.get("rope_theta")
    if scaling is None and theta is None:
        return {}
    kept = stored if scaling is None else {key: stored[key] for key in ("rope_theta",) if key in stored} | scaling
    return {"rope_parameters": kept if theta is None else {**kept, "rope_theta": theta}}
