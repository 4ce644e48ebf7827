"""What a model asks of attention, layer by layer, found by a pass without numbers; or why it cannot be served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from backend.attention.base import AttentionShape
from backend.models.fallback.interface import Unsupported

# What transformers passes along that changes nothing here: positions are applied before, nothing is cached there.
_WITHOUT_EFFECT = frozenset(
    [
        "cache_position",
        "dropout",
        "is_causal",  # looked at beside the module's own
        "layer_idx",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "past_key_values",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    ]
)
_UNDERSTOOD = frozenset(["s_aux", "scaling", "sliding_window", "softcap"])
_KINDS = frozenset(["full_attention", "sliding_attention"])


class Probe:
    """Stands in for attention and notes what each layer asks for. Gives tensors of the right shape."""

    def __init__(self) -> None:
        self.shapes: dict[int, AttentionShape] = {}

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        layer = getattr(module, "layer_idx", None)
        if not isinstance(layer, int):
            raise Unsupported(f"has a {type(module).__name__} that does not say which layer it is")
        if layer in self.shapes:
            raise Unsupported(f"attends more than once in layer {layer}")
        _check_call(module, mask, options)
        heads, size = query.shape[1], query.shape[-1]
        window = options.get("sliding_window")
        self.shapes[layer] = AttentionShape(
            num_heads=heads,
            num_kv_heads=key.shape[1],
            head_dim=max(size, value.shape[-1]),
            scale=float(options.get("scaling") or size**-0.5),
            window=None if window is None else int(window),
            soft_cap=options.get("softcap"),
            has_sinks=options.get("s_aux") is not None,
        )
        return query.new_empty(1, query.shape[2], heads, value.shape[-1])


def _check_call(module: nn.Module, mask: torch.Tensor | None, options: Mapping[str, Any]) -> None:
    if mask is not None:
        raise Unsupported("masks attention in a way of its own")
    causal = options.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        raise Unsupported("lets tokens see those behind them (an encoder)")
    known = _WITHOUT_EFFECT | _UNDERSTOOD
    strange = sorted(name for name, value in options.items() if name not in known and value not in (None, False))
    if strange:
        raise Unsupported(f"asks attention for what is not known here: {', '.join(strange)}")


def check_modules(model: nn.Module) -> None:
    """Refuse what is built to carry a state of its own from token to token."""
    if any(isinstance(module, nn.Conv1d) for module in model.modules()):
        raise Unsupported("has convolutions along the tokens (a state-space or hybrid model)")


def check_layers(shapes: Mapping[int, AttentionShape], config: Any) -> None:
    """Refuse what attention alone does not carry from token to token. ``config`` is the model's in ``transformers``."""
    kinds = set(getattr(config, "layer_types", None) or ()) - _KINDS
    if kinds:
        raise Unsupported(f"has layers of the kind {', '.join(sorted(map(str, kinds)))}")
    count = int(config.num_hidden_layers)
    if not shapes:
        raise Unsupported("has attention of its own, not that of transformers' interface")
    if sorted(shapes) != list(range(count)):
        raise Unsupported(f"attends in {len(shapes)} of its {count} layers only")
    if getattr(config, "num_kv_shared_layers", 0):
        raise Unsupported("shares keys and values among layers")
    if len({shape.num_kv_heads for shape in shapes.values()}) > 1:
        raise Unsupported("has layers with different numbers of key-value heads")
    _check_windows(shapes, config, count)


def _check_windows(shapes: Mapping[int, AttentionShape], config: Any, count: int) -> None:
    """A window that the configuration has and the layers do not tell would be forgotten."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return
    kinds = getattr(config, "layer_types", None)
    told = [shapes[layer].window is not None for layer in range(count)]
    expected = [kind == "sliding_attention" for kind in kinds] if kinds else None
    if told != expected and (expected is not None or not any(told)):
        raise Unsupported(f"does not tell attention which layers see a window of {window} tokens")


def check_positions(config: Any, context: int) -> None:
    """Refuse frequencies that change with the longest row of a batch: cached keys would no longer fit."""
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in [rope, *rope.values()]:
        kind = parameters.get("rope_type") if isinstance(parameters, Mapping) else None
        if kind not in ("dynamic", "longrope"):
            continue
        original = parameters.get("original_max_position_embeddings") if kind == "longrope" else None
        limit = int(original or config.max_position_embeddings)
        if context > limit:
            raise Unsupported(
                f"scales positions ({kind}) by the length of each prompt, which cached keys do not allow; "
                f"serve it with --context-length {limit}"
            )
