"""``--config FILE.yaml``: a flat map from flag names, with or without dashes, to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from backend.flags.values import FlagError


def read_config(path: str) -> dict[str, Any]:
    """The map in the file. Raises :class:`FlagError` when it cannot be read or is no map."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FlagError(f"--config {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FlagError(f"--config {path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise FlagError(f"--config {path} is not valid YAML{where}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise FlagError(f"--config {path} must map flag names to values, got a {type(content).__name__}")
    return {str(key): value for key, value in content.items()}
