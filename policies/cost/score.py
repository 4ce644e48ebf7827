"""The one cost: estimated milliseconds to the first token."""

from __future__ import annotations

from policies.policy import Candidate, Score


def score(candidate: Candidate, prompt_tokens: int, cached_tokens: int) -> Score:
    """Prefill work ahead of a newcomer, its own uncached tokens, and the decodes that share each step with it."""
    load, speed = candidate.load, candidate.speed
    return Score(
        worker=candidate.worker,
        cached_tokens=cached_tokens,
        queue_ms=load.waiting_tokens(speed.prefill_ms_per_token) * speed.prefill_ms_per_token,
        prefill_ms=(prompt_tokens - cached_tokens) * speed.prefill_ms_per_token,
        decode_ms=load.decodes * speed.decode_ms_per_step,
    )
