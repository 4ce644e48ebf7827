"""What the frontend knows of one running request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backend.frontend.logprobs import Logprobs
from backend.frontend.text import TextStream
from backend.sampling_params import SamplingParams


@dataclass(frozen=True, slots=True)
class FinishReason:
    """Why a request ended: ``stop`` (by a token id or a string), ``length`` or ``abort``."""

    kind: str
    matched: int | str | None = None
    length: int = 0
    message: str = ""
    status_code: int | None = None  # of an abort that is an error; None when a client asked for the abort

    def as_dict(self) -> dict[str, Any]:
        """The ``finish_reason`` of ``meta_info``."""
        if self.kind == "stop":
            return {"type": "stop", "matched": self.matched}
        if self.kind == "length":
            return {"type": "length", "length": self.length}
        return {"type": "abort", "message": self.message, "status_code": self.status_code, "err_type": None}


class Listener(Protocol):
    """Who waits for what a request brings; see :class:`backend.frontend.generation.Generation`."""

    def offer(self, state: RequestState) -> bool: ...

    def notify(self, state: RequestState) -> bool: ...

    def deliver(self) -> None: ...

    def fail(self, error: Exception) -> None: ...


@dataclass(slots=True, kw_only=True)
class RequestState:
    """One request from its arrival to its last token. Times are seconds of one monotonic clock.

    What each token of a stream touches stands together: with hundreds of streams it is in no cache any more.
    """

    uid: int
    finish: FinishReason | None = None
    last_token_at: float | None = None
    output_ids: list[int] = field(default_factory=list)
    text_stream: TextStream | None = None  # None without a tokenizer
    fresh: str = ""  # the end of the text that :meth:`take` has not given out
    taken: list[str] = field(default_factory=list)  # the text before it, in pieces
    listener: Listener | None = None  # who is told of what comes
    streaming: bool = False
    log_metrics: bool = True  # whether it counts in histograms and counters
    logprobs: Logprobs | None = None  # None when nobody asked for them
    rid: str  # what the client calls it
    index: int  # position among the answers of one call
    sample: int = 0  # position among the answers to one prompt
    prompt_ids: list[int]
    sampling: SamplingParams
    created: float
    structured: bool = False  # whether its output follows a grammar
    embedding: NDArray[np.float32] | None = None  # of the prompt, when that was asked for
    cached_tokens: int = 0
    fetched_tokens: int = 0  # those of them that came from the host tier
    started_at: float | None = None  # when the prompt was looked up in the cache: from then on cached_tokens is true
    first_token_at: float | None = None
    finished_at: float | None = None

    @property
    def text(self) -> str:
        """Grows only; holds nothing that may still change."""
        return "".join([*self.taken, self.fresh])

    def take(self) -> str:
        """The text that has come since the last call."""
        text = self.fresh
        if text:
            self.taken.append(text)
            self.fresh = ""
        return text

    @property
    def started(self) -> bool:
        return self.started_at is not None

    @property
    def prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def completion_tokens(self) -> int:
        return len(self.output_ids)

    @property
    def decodes_eagerly(self) -> bool:
        """Whether the text is needed before the end: to send it, or to look for a stop string."""
        return self.streaming or bool(self.sampling.stop or self.sampling.stop_regex)
