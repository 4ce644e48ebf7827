"""Sizes of a configuration that no model can have: each is told by its key, its value, and what would do."""

from __future__ import annotations

from typing import Any

from backend.prompt.errors import ModelError

_AT_LEAST_ONE = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "vocab_size", "max_position_embeddings"),
    *("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
_MOST_POSITIONS = 1 << 24  # tables of sines and cosines have a row for each


def check_sizes(raw: dict[str, Any], where: str) -> None:
    """Raise ModelError for the first size in ``raw`` (a config.json) that is impossible. Null is as good as absent."""
    for key in _AT_LEAST_ONE:
        if (value := raw.get(key)) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _impossible(where, key, value, "a whole number from 1 on")
    if (positions := raw.get("max_position_embeddings") or 0) > _MOST_POSITIONS:
        raise _impossible(where, "max_position_embeddings", positions, f"at most {_MOST_POSITIONS}")
    if raw.get("kv_lora_rank"):
        return  # latent attention: sizes of its own, and one key for all heads whatever num_key_value_heads says
    hidden, heads = raw["hidden_size"], raw["num_attention_heads"]
    if not raw.get("head_dim") and hidden % heads:
        wanted = f"a multiple of num_attention_heads ({heads}), or head_dim must be given"
        raise _impossible(where, "hidden_size", hidden, wanted)
    shared = raw.get("num_key_value_heads")
    if shared is not None and heads % shared:
        raise _impossible(where, "num_key_value_heads", shared, f"a divisor of num_attention_heads ({heads})")


def _impossible(where: str, key: str, value: Any, wanted: str) -> ModelError:
    return ModelError(
        f"{where}: {key} must be {wanted}, got {value!r}; correct it there, or in --json-model-override-args"
    )
