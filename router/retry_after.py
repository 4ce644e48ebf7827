"""The Retry-After header: seconds or a date."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 3600.0


def retry_after_seconds(value: str | None, wall_clock: float) -> float | None:
    """Seconds to wait, between 0 and an hour; None when absent or meaningless. ``wall_clock`` is seconds since 1970."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:6]), LONGEST_SECONDS)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    when = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return min(max(0.0, when - wall_clock), LONGEST_SECONDS)
