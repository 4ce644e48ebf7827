"""Copies between the device's pages and the host's, as the tree wants them and the step's thread carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from backend.cache.pages import Pages


class Move(NamedTuple):
    """Copy the pages ``device`` to the host's ``host``, or the other way round."""

    to_host: bool
    device: Pages
    host: Pages


@dataclass(frozen=True, slots=True)
class Transfers:
    """What must be copied, in this order, after all steps launched so far and before later ``Transfers``.

    With ``fence`` the next step waits for it and for all that was asked for before, layer by layer: the step may read
    what is loaded, or write pages that are still being saved.
    """

    moves: tuple[Move, ...]
    fence: bool


class MoveList:
    """Gathers the moves of one scheduling round."""

    def __init__(self) -> None:
        self._moves: list[Move] = []
        self._fence = False

    def save(self, device: Pages, host: Pages) -> None:
        self._moves.append(Move(True, device, host))

    def load(self, host: Pages, device: Pages) -> None:
        self._moves.append(Move(False, device, host))
        self._fence = True

    def reuse(self) -> None:
        """Pages that a copy may still read are free: the next step may write them."""
        self._fence = True

    def take(self) -> Transfers | None:
        """What was gathered since the last call; None when the next step need not care."""
        if not self._moves and not self._fence:
            return None
        transfers = Transfers(tuple(self._moves), self._fence)
        self._moves, self._fence = [], False
        return transfers
