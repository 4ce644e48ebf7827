"""Which version is installed."""

from __future__ import annotations

import importlib.metadata

PACKAGE = "warmlane"


def installed_version() -> str:
    """``unknown`` for a tree that runs without being installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
