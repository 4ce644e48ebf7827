"""What the configuration of each family leaves unsaid: defaults by ``model_type``, and which layers see a window."""

from __future__ import annotations

from typing import Any

from backend.prompt.errors import ModelError

_GEMMA: dict[str, Any] = {
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GEMMA2 = {**_GEMMA, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window_pattern": 2}
_GEMMA3 = {
    **_GEMMA,
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "sliding_window_pattern": 6,
}
_GPT_OSS = {"attention_bias": True, "head_dim": 64, "sliding_window": 128, "sliding_window_pattern": 2}
_QWEN = {"use_sliding_window": False, "max_window_layers": 28}

_ALIASES = {"num_local_experts": "num_experts", "num_experts": "num_local_experts"}

DEFAULTS: dict[str, dict[str, Any]] = {
    "cohere": {"tie_word_embeddings": True},
    "gemma": {**_GEMMA, "sliding_window": None},
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gpt_oss": _GPT_OSS,
    "qwen2": {**_QWEN, "attention_bias": True},
    "qwen3": {**_QWEN, "head_dim": 128},
    "qwen3_moe": {**_QWEN, "max_window_layers": 0, "num_experts_per_tok": 8},
}


def with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """``raw`` (a config.json) completed; a vision-language model's text part comes up to the top."""
    text = raw.get("text_config")
    if isinstance(text, dict):
        raw = {**raw, **text, "model_type": raw.get("model_type")}
    completed = {**DEFAULTS.get(str(raw.get("model_type")), {}), **raw}
    for alias, name in _ALIASES.items():
        if alias in completed:
            completed.setdefault(name, completed[alias])
    return completed


def refuse_bidirectional(raw: dict[str, Any], where: str) -> None:
    """Raise ModelError for a decoder whose tokens see what follows them, as some embedding models do."""
    looks_ahead = raw.get("use_bidirectional_attention") in (True, "all")
    if looks_ahead or raw.get("is_causal") is False:
        key = "use_bidirectional_attention" if looks_ahead else "is_causal"
        raise ModelError(f"{where}: {key} is {raw[key]!r}: tokens see what follows them, which is not supported")


def layer_windows(raw: dict[str, Any], num_layers: int, where: str) -> tuple[int | None, ...]:
    """For each layer, how many tokens it sees (its own included), or None for all. Raises ModelError."""
    window = raw.get("sliding_window")
    if not window or raw.get("use_sliding_window") is False:
        return (None,) * num_layers
    kinds = raw.get("layer_types") or [_kind(raw, layer) for layer in range(num_layers)]
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    if unknown or len(kinds) != num_layers:
        raise ModelError(f"{where}: 'layer_types' must name full_attention or sliding_attention for each layer")
    if int(window) < 1:
        raise ModelError(f"{where}: sliding_window must be at least 1 token, or null, got {window}")
    return tuple(int(window) if kind == "sliding_attention" else None for kind in kinds)


def _kind(raw: dict[str, Any], layer: int) -> str:
    """Without ``layer_types``: all but every n-th layer, all from a first one on, or simply all."""
    pattern, first = raw.get("sliding_window_pattern"), raw.get("max_window_layers")
    if pattern:
        sliding = (layer + 1) % int(pattern) != 0
    else:
        sliding = first is None or layer >= int(first)
    return "sliding_attention" if sliding else "full_attention"
