"""What keeps prefixes apart besides their tokens: adapter, cache salt, extra key, as one string.

Each part carries its length, so that two different sets of parts never look alike.
"""

from __future__ import annotations

from collections.abc import Sequence


def joined(parts: Sequence[str]) -> str:
    """One string for ``parts``; empty when all of them are."""
    return "".join(f"{len(part)}:{part}" for part in parts) if any(parts) else ""


def split(namespace: str) -> list[str]:
    """The parts of what :func:`joined` made."""
    parts, at = [], 0
    while at < len(namespace):
        length, _, _ = namespace[at:].partition(":")
        begin = at + len(length) + 1
        at = begin + int(length)
        parts.append(namespace[begin:at])
    return parts
