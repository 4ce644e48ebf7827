"""A request as the simulator sees it: lengths and the identity of its prefixes, no text."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import pack

MASK = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SimRequest:
    """One request of a trace.

    The prompt is a chain of segments. A segment's number names its text together with everything before it, so equal
    numbers mean equal prefixes. ``sizes`` are in tokens, one per segment.
    """

    arrival: float  # seconds
    segments: tuple[int, ...]
    sizes: tuple[int, ...]
    output_tokens: int
    answer: int | None = None  # the segment that the output will be in a later prompt; None when nobody repeats it
    session: str = ""  # who asks, for policies that stick
    prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        if len(self.segments) != len(self.sizes) or not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"a request needs one size of at least 1 token a segment, got {self.sizes}")
        if self.output_tokens < 1:
            raise ValueError(f"output_tokens must be at least 1, got {self.output_tokens}")
        object.__setattr__(self, "prompt_tokens", sum(self.sizes))


class SegmentText:
    """Text with the same shared prefixes as the segments, for policies that compare texts."""

    def __init__(self, bytes_per_token: int = 4) -> None:
        if bytes_per_token < 1:
            raise ValueError(f"bytes_per_token must be at least 1, got {bytes_per_token}")
        self._bytes_per_token = bytes_per_token

    def __call__(self, request: SimRequest) -> bytes:
        pairs = zip(request.segments, request.sizes, strict=True)
        return b"".join([self._segment(segment, size * self._bytes_per_token) for segment, size in pairs])

    @staticmethod
    def _segment(segment: int, length: int) -> bytes:
        pattern = pack("<Q", mix(segment))
        return (pattern * (length // 8 + 1))[:length]


def mix(number: int) -> int:
    """The finaliser of splitmix64: neighbours in, unrelated 64-bit numbers out."""
    number = (number + 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)
