"""``--kv-events-config``: where KV events are published, in the JSON that SGLang and vLLM know."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, UnsetType

EXAMPLE = '{"publisher": "zmq", "endpoint": "tcp://*:5557"}'


class KVEventsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Endpoints are ZMQ addresses to bind; port ``*`` takes any free one, which ``/server_info`` tells."""

    publisher: Literal["zmq", "null"] = "zmq"
    endpoint: str = "tcp://*:5557"
    replay_endpoint: str | UnsetType | None = UNSET  # unset: a free port on the endpoint's host; null: no replay
    buffer_steps: int = 10_000  # batches kept for replay
    hwm: int = 100_000  # batches that a slow subscriber may be behind before it loses some
    max_queue_size: int = 100_000  # batches waiting to be encoded before some are skipped
    topic: str = ""
    enable_kv_cache_events: bool = True

    @property
    def enabled(self) -> bool:
        return self.publisher == "zmq" and self.enable_kv_cache_events

    @property
    def replay(self) -> str | None:
        """The address of the replay socket; None: there is none."""
        if not isinstance(self.replay_endpoint, UnsetType):
            return self.replay_endpoint
        scheme, _, rest = self.endpoint.partition("://")
        if scheme == "tcp":
            return f"tcp://{rest.rpartition(':')[0]}:*"
        return f"{self.endpoint}-replay"


def parse_kv_events_config(text: str) -> KVEventsConfig:
    """Raises ``ValueError`` that says what is wrong with the JSON."""
    try:
        config = msgspec.json.decode(text, type=KVEventsConfig)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise ValueError(f"{error}; an example: {EXAMPLE}") from None
    for endpoint in (config.endpoint, config.replay):
        if endpoint is not None and urlsplit(endpoint).scheme not in ("tcp", "ipc", "inproc"):
            raise ValueError(f"endpoint {endpoint!r} is no ZMQ address; an example: {EXAMPLE}")
    if min(config.buffer_steps, config.hwm, config.max_queue_size) < 0:
        raise ValueError("buffer_steps, hwm and max_queue_size must be at least 0")
    return config


def is_kv_events_config(text: str) -> bool:
    try:
        parse_kv_events_config(text)
    except ValueError:
        return False
    return True
