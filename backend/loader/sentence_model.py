"""How a model wants its hidden states pooled, as sentence-transformers writes it beside the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.prompt.errors import ModelError
from backend.prompt.files import read_json

_MODES = {"lasttoken": "last", "mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}
_PREFIX = "pooling_mode_"
_KNOWN = {"Transformer", "Pooling", "Normalize"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """``mode`` is "last", "mean", or the file's own word for what is not supported."""

    mode: str = "last"
    normalise: bool = True  # vectors are given with length 1


def read_pooling(folder: Path) -> Pooling | None:
    """What ``modules.json``, else ``1_Pooling/config.json``, in ``folder`` says; None without either.

    Raises ModelError for a file that is not what it should be, and for modules that nothing here computes.
    """
    modules = _modules(folder / "modules.json")
    if modules is None:
        config = read_json(folder / "1_Pooling" / "config.json")
        return None if config is None else Pooling(_mode(config))
    if "Pooling" not in modules:  # such as those of a cross-encoder
        return None
    unknown = sorted(set(modules) - _KNOWN)
    if unknown:
        raise ModelError(
            f"{folder / 'modules.json'} has modules that are not supported: {', '.join(unknown)}; "
            f"known are {', '.join(sorted(_KNOWN))}"
        )
    config = read_json(folder / modules["Pooling"] / "config.json") or {}
    return Pooling(_mode(config), normalise="Normalize" in modules)


def is_sentence_model(folder: Path) -> bool:
    """Whether ``modules.json`` in ``folder`` says that the model is for embeddings. Raises ModelError."""
    return "Pooling" in (_modules(folder / "modules.json") or {})


def _modules(path: Path) -> dict[str, str] | None:
    """The kinds of modules, without the packages before them, and the folder of each."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(module["type"]).rpartition(".")[2]: str(module.get("path", "")) for module in found}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} is no list of modules as sentence-transformers writes it: {error!r}") from error


def _mode(config: dict[str, Any]) -> str:
    named = config.get("pooling_mode") or [
        name.removeprefix(_PREFIX) for name, chosen in config.items() if name.startswith(_PREFIX) and chosen
    ]
    names = [named] if isinstance(named, str) else [str(each) for each in named]
    return "+".join(_MODES.get(name, name) for name in names) or "last"
