"""The inference runtime behind the router: a complete single-GPU (or CPU) backend.

``Engine`` runs it in process, ``launch_server`` over HTTP. Names are imported on first use, so that importing a leaf
such as ``backend.prompt`` brings no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.config import ServerArgs
    from backend.engine import Engine
    from backend.sampling_params import SamplingParams

__all__ = ["Engine", "SamplingParams", "ServerArgs"]

_HOMES = {
    "Engine": "backend.engine",
    "SamplingParams": "backend.sampling_params",
    "ServerArgs": "backend.config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'backend' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
