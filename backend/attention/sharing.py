"""Which rows of a decode step read the same pages first, so that those are read once for all of them.

A prefix that many rows share is attended to as one block of queries, what is behind it row by row, and the two results
are merged by their sums (cascade inference, Ye et al., 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_ROWS = 4  # of a group
LEAST_SAVED = 0.25  # of all tokens that the step reads: below it the second kernel costs more than it saves
LEAST_SAVED_TOKENS = 16384  # likewise


@dataclass(frozen=True, slots=True)
class Sharing:
    """Groups of rows in the order ``order``; group ``g`` are the rows ``bounds[g]`` to ``bounds[g + 1]`` of it.

    The last groups may be of rows that share nothing, with a prefix of no pages.
    """

    order: NDArray[np.int64]  # [R] rows, grouped
    bounds: NDArray[np.int32]  # [G + 1]
    pages: tuple[NDArray[np.int32], ...]  # of each group's prefix


def find_sharing(
    table: NDArray[np.int32], kv_lens: NDArray[np.int32], page_size: int, max_groups: int
) -> Sharing | None:
    """The groups worth it among rows whose pages are ``table`` ``[R, P]``; None when there are none.

    A row's last page is never part of a prefix: it is where its new token goes.
    """
    first, members = np.unique(table[:, 0], return_inverse=True)
    sizes = np.bincount(members, minlength=len(first))
    if sizes.max() < LEAST_ROWS:
        return None
    groups: list[tuple[int, NDArray[np.int64], NDArray[np.int32]]] = []
    full = (kv_lens - 1) // page_size
    for group in (sizes >= LEAST_ROWS).nonzero()[0]:
        rows = (members == group).nonzero()[0]
        count = _common(table[rows, : int(full[rows].min())])
        groups.append(((len(rows) - 1) * count * page_size, rows, table[rows[0], :count]))
    groups.sort(key=lambda each: -each[0])
    best = [each for each in groups[: max_groups - 1] if each[0]]
    saved = sum(tokens for tokens, _, _ in best)
    if saved < max(LEAST_SAVED * int(kv_lens.sum()), LEAST_SAVED_TOKENS):
        return None
    alone = np.ones(len(table), np.bool_)
    for _, rows, _ in best:
        alone[rows] = False
    parts = [rows for _, rows, _ in best] + [alone.nonzero()[0]]
    bounds = np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int32)
    return Sharing(np.concatenate(parts), bounds, (*(pages for _, _, pages in best), table[0, :0]))


def _common(table: NDArray[np.int32]) -> int:
    """How many leading columns are the same in all rows."""
    same = (table == table[0]).all(axis=0)
    return len(same) if same.all() else int(np.argmin(same))
