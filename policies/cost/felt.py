"""How much of a prompt was computed, as the time to its first token tells.

Backends that tell their cached tokens at the end of an answer tell them seconds late. The first token comes earlier: a
prompt that was thought to be cached and took as long as one that was not shows that the cache is not what it was. The
time counts from the prompt's turn on, so that a stall is felt by one prompt and not by all that waited behind it.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.cost.leases import Lease
from policies.cost.rates import RateBook
from policies.policy import WorkerLoad

FAR = 2.0  # times are learned, and vary: less is no proof
SLACK_TOKENS = 64  # pages, template tokens


class Felt(NamedTuple):
    """What a time to first token was long enough for."""

    computed: float  # prompt tokens
    alone: bool  # nothing was ahead: the prompt cannot have been computed together with another one

    def denies(self, prompt_tokens: int, cached: int) -> bool:
        """Was it far too long for a prompt of which ``cached`` tokens were there?"""
        own = prompt_tokens - cached
        return cached > SLACK_TOKENS and self.computed > max(FAR * own, own + cached / FAR) + SLACK_TOKENS

    def exceeds(self, prompt_tokens: int, cached: int, more: int) -> bool:
        """Was it far too short for a prompt of which only ``cached`` tokens were there, and not ``more``?"""
        own = max(self.computed, prompt_tokens - more) + SLACK_TOKENS
        return self.alone and prompt_tokens - cached > FAR * own


def feel(lease: Lease, before: WorkerLoad, speeds: RateBook, now: float) -> Felt | None:
    """Of a first token that comes ``now``, before the lease is told; ``before``: the load when the prompt was sent.

    None where the time tells nothing: another prompt is older, others send prompts there too, or the worker's speed is
    not known yet.
    """
    turn_ms = lease.turn_ms(now)
    if turn_ms is None or before.others_tokens or before.others_decodes:
        return None
    computed = speeds.tokens_in(lease.worker, turn_ms, before.decodes)
    return None if computed is None else Felt(computed, before.prefill_tokens == 0)
