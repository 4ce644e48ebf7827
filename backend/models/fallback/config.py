"""The configuration of a model that ``transformers`` runs, in our vocabulary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from backend.attention.base import AttentionShape
from backend.loader.model_config import ModelConfig, Reference, parse_config
from backend.models.fallback.interface import Unsupported
from backend.models.fallback.model import probe_layers
from backend.models.registry import ARCHITECTURES, nearest
from backend.models.tasks import Task
from backend.prompt.errors import ModelError

_OURS = {  # key of ModelConfig's configuration -> attributes of transformers that say it
    "hidden_size": ("hidden_size",),
    "intermediate_size": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"),
    "num_hidden_layers": ("num_hidden_layers",),
    "vocab_size": ("vocab_size",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "rope_parameters": ("rope_parameters",),
    "tie_word_embeddings": ("tie_word_embeddings",),
    "bos_token_id": ("bos_token_id",),
    "eos_token_id": ("eos_token_id",),
}


def transformers_config(raw: dict[str, Any], architecture: str, where: str) -> ModelConfig:
    """The configuration of ``raw`` (a config.json), completed by what the model's layers ask of attention.

    Raises ModelError when ``transformers`` does not know ``architecture``, or when it cannot be served.
    """
    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        raise ModelError(f"{where}: {_unknown(architecture, raw)}")
    try:
        config = CONFIG_MAPPING[str(raw.get("model_type"))].from_dict(raw)
    except Exception as error:  # each family checks its configuration in its own way
        raise ModelError(f"{where}: transformers refuses the configuration: {_first_line(error)}") from error
    try:
        shapes = probe_layers(config)
    except Unsupported as error:
        raise ModelError(f"{where}: {architecture} cannot be served: it {error}; {_near(architecture)}") from error
    except Exception as error:  # whatever a model's own code raises
        reason = f"its pass fails with {type(error).__name__}: {_first_line(error)}"
        raise ModelError(f"{where}: {architecture} cannot be served: {reason}; {_near(architecture)}") from error
    return replace(
        parse_config(_in_our_words(raw, config, architecture) | _heads(shapes[0]), where),
        windows=tuple(shape.window for shape in shapes),
        raw=raw,
        task=Task.GENERATE,
        reference=Reference(config, shapes),
    )


def _heads(shape: AttentionShape) -> dict[str, int]:
    return {
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
    }


def _in_our_words(raw: dict[str, Any], config: PretrainedConfig, architecture: str) -> dict[str, Any]:
    """The keys that ModelConfig reads; transformers knows those that a family calls otherwise, and its defaults."""
    ours: dict[str, Any] = {"architectures": [architecture], "model_type": config.model_type}
    for key, names in _OURS.items():
        ours[key] = next((value for name in names if (value := getattr(config, name, None)) is not None), None)
    ours["intermediate_size"] = ours["intermediate_size"] or 1  # of no use here, and not every family has one
    ours["dtype"] = raw.get("dtype") or raw.get("torch_dtype")
    ours["eos_token_id"] = raw.get("eos_token_id") or ours["eos_token_id"]
    return ours


def _unknown(architecture: str, raw: dict[str, Any]) -> str:
    if raw.get("is_encoder_decoder"):
        return f"{architecture} is an encoder-decoder model, and only decoders are served; {_near(architecture)}"
    version = transformers.__version__
    missing = f"architecture {architecture!r} is not supported, and transformers {version} has no such decoder"
    return f"{missing}; {_near(architecture)}"


def _near(architecture: str) -> str:
    known = {*ARCHITECTURES, *MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()} - {architecture}
    return f"nearest: {', '.join(nearest(architecture, sorted(known)))}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
