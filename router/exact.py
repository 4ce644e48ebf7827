"""Exact knowledge for placement: what each worker holds of a prompt, when that can be known.

It can when the worker's events are complete, the prompt is known as token ids, and the worker is known to make the same
ids of it as the router does. Otherwise the policy has its own guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policies.policy import RouteRequest
from policies.prefix.block_index import Held, PromptKey
from router.body import Facts, Form
from router.fleet.kv_events import KVEvents
from router.namespace import split
from router.pending import PendingBlocks
from router.tokenise import TokenPool, Tokens


class ExactPrefixes:
    """Asks the block index. ``same_tokens(url)``: does this worker tokenise as the router does?"""

    def __init__(self, events: KVEvents, pool: TokenPool, same_tokens: Callable[[str], bool]) -> None:
        self._events = events
        self._pool = pool
        self._same_tokens = same_tokens
        self._pending = PendingBlocks()

    def wanted(self, facts: Facts) -> bool:
        """Can anybody's cache be compared with the prompt's tokens?"""
        form = facts.form
        return self._events.followed and (form is Form.IDS or (form is not Form.OTHER and self._pool.can_encode))

    async def tokens(self, facts: Facts) -> Tokens | None:
        """The prompt's tokens and blocks; None when they cannot be had now."""
        sizes = self._events.block_sizes
        route = facts.route
        key = prompt_key(route.namespace)
        if facts.form is Form.IDS:
            return await self._pool.of_ids(route.text[1:], sizes, key)
        return await self._pool.of_text(route.text, facts.form is Form.PLAIN, sizes, key)

    def match(self, tokens: Tokens | None) -> Mapping[str, Held]:
        return {} if tokens is None else self._events.index.match(tokens.chains)

    def held(self, url: str, matched: Mapping[str, Held], tokens: Tokens, form: Form) -> int | None:
        """Cached tokens of the prompt on a worker, now or when its turn comes; None when that is not exactly known."""
        if not self._events.exact(url) or not (form is Form.IDS or self._same_tokens(url)):
            return None
        found = matched.get(url)
        return max(found.tokens if found else 0, self._pending.tokens(url, tokens.chains))

    def sent(self, url: str, tokens: Tokens) -> None:
        """A prompt is on its way to ``url``, which will hold it until it is over."""
        self._pending.add(url, tokens.chains)

    def over(self, url: str, tokens: Tokens) -> None:
        """From now on events alone tell what is left of it."""
        self._pending.remove(url, tokens.chains)


def with_length(route: RouteRequest, tokens: Tokens | None) -> RouteRequest:
    """``route`` with the prompt's exact length."""
    if tokens is None or not tokens.length:
        return route
    return RouteRequest(route.text, tokens.length, route.model, route.namespace, route.routing_key, route.target)


def prompt_key(namespace: str) -> PromptKey:
    """Adapter and salts out of a route's namespace; an extra key stands second, as our backend tells it."""
    lora, salt, key = split(namespace) or ("", "", "")
    return PromptKey(lora, (salt, key) if key else (salt,) if salt else ())
