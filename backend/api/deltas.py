"""The text that a stream has not sent yet, for each request of a call."""

from __future__ import annotations

from backend.frontend.request import RequestState


class Deltas:
    """Remembers how much of each text was sent."""

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}

    def begun(self, state: RequestState) -> bool:
        """Whether anything was taken for this request."""
        return state.uid in self._sent

    def take(self, state: RequestState) -> str:
        """What is new since the last call."""
        sent = self._sent.get(state.uid, 0)
        self._sent[state.uid] = len(state.text)
        return state.text[sent:]
