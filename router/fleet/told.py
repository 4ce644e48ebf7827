"""What workers say is believed as far as it makes sense: neither nonsense nor malice ends the task that asked."""

from __future__ import annotations

import math
from typing import Any

import msgspec

MOST = 2**40  # of anything that a worker counts; more is a mistake, and would not fit into a float for long


def decoded(body: bytes | str, kind: Any) -> Any:
    """``body`` as a ``kind``; None when it is something else."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def figure(text: bytes) -> float | None:
    """A number of a Prometheus exposition; None when it is none, or not finite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def counted(number: int) -> int:
    """A count, between nothing and :data:`MOST`."""
    return min(max(number, 0), MOST)
