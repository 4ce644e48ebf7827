"""How long a request may wait for its first step, and how long it may run after that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.config import ServerArgs
from backend.frontend.request import RequestState

WAITING_VARIABLE = "SGLANG_REQ_WAITING_TIMEOUT"
RUNNING_VARIABLE = "SGLANG_REQ_RUNNING_TIMEOUT"
CHECKS_PER_TIMEOUT = 20
SHORTEST_CHECK, LONGEST_CHECK = 0.02, 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 0 is for ever. The scheduler knows no clock, so the frontend keeps them."""

    waiting: float = 0.0  # from arrival to the first step
    running: float = 0.0  # from there to the end

    @staticmethod
    def of(args: ServerArgs, environ: Mapping[str, str]) -> Timeouts:
        """As the flags say, else SGLang's variables. ``ValueError`` for a variable that is no number."""
        waiting, running = args.req_waiting_timeout, args.req_running_timeout
        return Timeouts(
            waiting=_variable(WAITING_VARIABLE, environ) if waiting is None else waiting,
            running=_variable(RUNNING_VARIABLE, environ) if running is None else running,
        )

    @property
    def interval(self) -> float | None:
        """How often requests are looked at; None when nothing limits them."""
        limits = [limit for limit in (self.waiting, self.running) if limit > 0]
        return min(max(min(limits) / CHECKS_PER_TIMEOUT, SHORTEST_CHECK), LONGEST_CHECK) if limits else None

    def verdict(self, state: RequestState, now: float) -> str | None:
        """Why ``state`` must end now, or None."""
        if state.started_at is None:
            if 0 < self.waiting < now - state.created:
                return f"Request waiting timeout reached: no step within {self.waiting:g} s (--req-waiting-timeout)."
        elif 0 < self.running < now - state.started_at:
            return f"Request running timeout reached: no end within {self.running:g} s (--req-running-timeout)."
        return None


def _variable(name: str, environ: Mapping[str, str]) -> float:
    """SGLang's default is -1, which means for ever as 0 does here."""
    text = environ.get(name, "0")
    try:
        return max(float(text), 0.0)
    except ValueError:
        raise ValueError(f"the environment variable {name} must be a number of seconds, got {text!r}") from None
