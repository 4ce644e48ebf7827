"""Where a worker publishes its KV events, read from what it says of itself in ``/server_info``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from router.fleet.told import decoded
from router.fleet.worker import Worker

ENDPOINT_LABEL, REPLAY_LABEL = "kv_events_endpoint", "kv_events_replay_endpoint"
PATHS = ("/server_info", "/get_server_info", "/server_info?config_format=json")  # ours and SGLang's; SGLang's; vLLM's
MAX_RANKS = 256
_TCP = re.compile(r"tcp://(.+):(\d{1,5})")
_ANY_HOST = frozenset({"*", "0.0.0.0", "[::]", "::"})


@dataclass(frozen=True, slots=True)
class KVSource:
    """One stream of events: a data-parallel rank. Endpoints are ZMQ addresses to connect to."""

    endpoint: str
    replay_endpoint: str | None
    topic: str = ""
    rank: int = 0
    block_size: int = 0  # tokens; 0: the events will tell


def sources(worker: Worker, info: Mapping[str, Any]) -> list[KVSource]:
    """The streams that ``info`` announces; labels of the worker win. Empty when there are none."""
    config = _labelled(worker) or _announced(info)
    if config is None:
        return []
    ranks = info.get("dp_size") if isinstance(info.get("dp_size"), int) else 1
    host = urlsplit(worker.url).hostname or ""
    found = []
    for rank in range(min(max(int(ranks or 1), 1), MAX_RANKS)):
        endpoint = _reachable(config.get("endpoint"), host, rank)
        if endpoint is not None:
            replay = _reachable(config.get("replay_endpoint"), host, rank)
            topic = config.get("topic")
            topic = topic if isinstance(topic, str) else ""
            found.append(KVSource(endpoint, replay, topic, rank, _block_size(config, info)))
    return found


def _labelled(worker: Worker) -> dict[str, Any] | None:
    endpoint = worker.spec.labels.get(ENDPOINT_LABEL)
    return {"endpoint": endpoint, "replay_endpoint": worker.spec.labels.get(REPLAY_LABEL)} if endpoint else None


def _announced(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Our backend says where it listens (``kv_events``); SGLang and vLLM repeat their flag (``kv_events_config``)."""
    vllm = info.get("vllm_config")
    holders = [info, vllm] if isinstance(vllm, dict) else [info]
    for holder in holders:
        for name in ("kv_events", "kv_events_config"):
            config = holder.get(name)
            if isinstance(config, str):
                config = decoded(config, Any)
            if isinstance(config, dict) and _publishes(config):
                return config
    return None


def _publishes(config: Mapping[str, Any]) -> bool:
    return config.get("publisher", "zmq") == "zmq" and config.get("enable_kv_cache_events", True) is True


def _block_size(config: Mapping[str, Any], info: Mapping[str, Any]) -> int:
    """Our backend's word, or SGLang's."""
    told = config.get("block_size", info.get("page_size"))
    return told if isinstance(told, int) and told > 0 else 0


def _reachable(endpoint: Any, host: str, rank: int) -> str | None:
    """``endpoint`` as seen from here: a wildcard host is the worker's, each rank has the next port."""
    if not isinstance(endpoint, str):
        return None
    if endpoint.startswith("ipc://"):
        return endpoint if rank == 0 else None
    parts = _TCP.fullmatch(endpoint)
    if parts is None or not 0 < int(parts[2]) + rank < 65536:
        return None
    named = f"[{host}]" if ":" in host else host
    return f"tcp://{named if parts[1] in _ANY_HOST else parts[1]}:{int(parts[2]) + rank}"
