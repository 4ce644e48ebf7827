"""Parts of an answer by their tokens, for what is counted rather than read."""

from __future__ import annotations

from collections.abc import Sequence


def tokens_between(ids: Sequence[int], begin: Sequence[int], end: Sequence[int]) -> int:
    """How many of ``ids`` lie in spans from ``begin`` to ``end``, with both; the last span may lack its end."""
    count, place = 0, _find(ids, begin, 0)
    while place < len(ids):
        after = min(_find(ids, end, place + len(begin)) + len(end), len(ids))
        count += after - place
        place = _find(ids, begin, after)
    return count


def _find(ids: Sequence[int], wanted: Sequence[int], start: int) -> int:
    """Where ``wanted`` is next; the length of ``ids`` when it is nowhere."""
    wanted = list(wanted)
    places = range(start, len(ids) - len(wanted) + 1)
    return next((at for at in places if ids[at] == wanted[0] and list(ids[at : at + len(wanted)]) == wanted), len(ids))
