"""How a model wants its hidden states pooled, as sentence-transformers writes it beside the weights."""

from __future__ import annotations

from backend.prompt.files import read_json
from backend.prompt.source import ModelSource

_MODES = {"pooling_mode_lasttoken": "last", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


def pooling_of(source: ModelSource) -> str:
    """``last`` unless ``1_Pooling/config.json`` says otherwise. Raises ModelError for a file that is no JSON."""
    config = (read_json(source.path / "1_Pooling" / "config.json") or {}) if source.kind == "folder" else {}
    return next((mode for name, mode in _MODES.items() if config.get(name)), "last")
