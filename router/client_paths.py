"""Which paths of a backend every client may ask for. The others steer the backend: they are an operator's.

A list of what is open, not of what is closed: backends of every make have controls of their own (pause, sleep, new
weights, adapters), and a worker with a key of its own gets that one whoever asked.
"""

from __future__ import annotations

from urllib.parse import unquote

from router.body import INFERENCE_ROUTES

ABORT = "/abort_request"  # the router's own, and yet it ends the requests of others
_OPEN = INFERENCE_ROUTES | {
    "/detokenize",
    "/get_model_info",
    "/health_generate",
    "/model_info",
    "/ping",
    "/pooling",
    "/score",
    "/tokenize",
    "/version",
}
_API = "/v1/"
_STEERING = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})


def clients_may_ask(path: str) -> bool:
    """``path``: as it came, without its query."""
    path = unquote(path)
    if path in _OPEN:
        return True
    segments = path[1:].split("/")
    odd = any(segment in ("", ".", "..") for segment in segments)  # servers differ in what they make of these
    return path.startswith(_API) and not odd and path not in _STEERING


def ends_others(path: str) -> bool:
    """Does it end requests that may be somebody else's?"""
    return unquote(path) == ABORT
