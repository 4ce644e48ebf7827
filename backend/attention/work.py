"""Which programs of a kernel do what: lists made on the host from the lengths of a step's rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def decode_items(
    kv_lens: NDArray[np.int32], window: int | None, extra: int, tile: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Parts of about equal size, of the tokens that each row's new one sees.

    Returns int32[3, R + extra], the row, first token and token behind the last of each part (nothing in the ones left
    over), and int32[R + 1], each row's first part. A part is a multiple of ``tile`` tokens, but for a row's last.
    """
    rows = len(kv_lens)
    lens = kv_lens if window is None else np.minimum(kv_lens, window)
    size = max(-(-int(lens.sum()) // max(extra, 1)), tile)
    size = -(-size // tile) * tile
    counts = -(-lens // size)
    firsts = np.zeros(rows + 1, np.int32)
    np.cumsum(counts, out=firsts[1:])
    used = int(firsts[-1])
    items = np.zeros((3, rows + extra), np.int32)
    row = items[0, :used] = np.repeat(np.arange(rows, dtype=np.int32), counts)
    start = items[1, :used] = (kv_lens - lens)[row] + (np.arange(used, dtype=np.int32) - firsts[row]) * size
    items[2, :used] = np.minimum(start + size, kv_lens[row])
    return items, firsts


def query_blocks(query_lens: NDArray[np.int32], kv_lens: NDArray[np.int32], positions: int) -> NDArray[np.int32]:
    """int32[2, blocks]: row, and first of its new tokens, of blocks of ``positions`` queries; those with most keys to
    see come first, so that no long one is left at the end.
    """
    counts = -(-query_lens // positions)
    row = np.repeat(np.arange(len(query_lens), dtype=np.int32), counts)
    behind = np.cumsum(counts)
    first = (np.arange(len(row), dtype=np.int32) - np.repeat(behind - counts, counts)) * positions
    order = np.argsort(-((kv_lens - query_lens)[row] + first), kind="stable")
    return np.stack((row[order], first[order])).astype(np.int32)


def leading_ones(query_lens: NDArray[np.int32]) -> int:
    """Rows of one token before the first longer one; a row of padding behind may have one token, too."""
    longer = query_lens != 1
    return int(np.argmax(longer)) if longer.any() else len(query_lens)


def widened(numbers: NDArray[np.int32], columns: int) -> NDArray[np.int32]:
    """With zeros behind each row."""
    wide = np.zeros((len(numbers), columns), np.int32)
    wide[:, : numbers.shape[1]] = numbers
    return wide


def continued(numbers: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """With the last one repeated."""
    return np.pad(numbers, (0, count - len(numbers)), mode="edge")
