"""ModelConfig: a model's architecture in one vocabulary, whether it came from config.json or from GGUF metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from backend.loader.gguf_config import gguf_to_config
from backend.prompt.errors import ModelError
from backend.prompt.files import id_list, read_json
from backend.prompt.gguf_file import GGUFFile
from backend.prompt.source import ModelSource

_TIED_BY_DEFAULT = ("gemma", "gemma2", "gemma3", "gemma3_text", "cohere", "cohere2")
_QK_NORM = ("qwen3", "qwen3_moe")
_QWEN3_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding. The scaling fields mean what they mean in the ``rope_parameters`` of transformers."""

    theta: float
    rope_type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int | None = None
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What building a model needs to know. ``raw`` is the whole config for what only one family has."""

    architecture: str  # such as LlamaForCausalLM
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    qk_norm: bool
    hidden_act: str
    dtype: str  # as declared: float32, bfloat16, float16
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    raw: dict[str, Any]


def load_model_config(source: ModelSource) -> ModelConfig:
    """Read a model's configuration. Raises ModelError that names the file and the key when one is missing."""
    if source.kind == "gguf":
        return parse_config(gguf_to_config(GGUFFile.open(source.path)), where=str(source.path))
    path = source.path / "config.json"
    raw = read_json(path)
    if raw is None:
        raise ModelError(f"model folder {source.path} has no config.json")
    generation = read_json(source.path / "generation_config.json") or {}
    eos = [*id_list(raw.get("eos_token_id")), *id_list(generation.get("eos_token_id"))]
    return parse_config({**raw, "eos_token_id": list(dict.fromkeys(eos))}, where=str(path))


def parse_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from the keys of a config.json, of transformers 4 or 5. ``where`` is named in errors."""
    need = _Required(raw, where)
    architectures = need("architectures", list)
    if not architectures:
        raise ModelError(f"{where}: 'architectures' is empty; it must name the model's class, such as LlamaForCausalLM")
    model_type = need("model_type", str)
    hidden, heads = need("hidden_size", int), need("num_attention_heads", int)
    return ModelConfig(
        architecture=architectures[0],
        model_type=model_type,
        hidden_size=hidden,
        intermediate_size=need("intermediate_size", int),
        num_layers=need("num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or (_QWEN3_HEAD_DIM if model_type in _QK_NORM else hidden // heads),
        vocab_size=need("vocab_size", int),
        max_position_embeddings=need("max_position_embeddings", int),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope=parse_rope(raw),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", model_type in _TIED_BY_DEFAULT)),
        attention_bias=bool(raw.get("attention_bias", model_type == "qwen2")),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        qk_norm=model_type in _QK_NORM,
        hidden_act=raw.get("hidden_act", "silu"),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch."),
        eos_token_ids=tuple(id_list(raw.get("eos_token_id"))),
        bos_token_id=next(iter(id_list(raw.get("bos_token_id"))), None),
        raw=raw,
    )


def parse_rope(raw: dict[str, Any]) -> RopeConfig:
    """RoPE from ``rope_parameters`` (transformers 5) or from ``rope_theta`` and ``rope_scaling`` (transformers 4)."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    # Models that mix attention kinds have one set of parameters for each.
    scaling = scaling.get("full_attention", scaling)
    original = scaling.get("original_max_position_embeddings") or raw.get("original_max_position_embeddings")
    return RopeConfig(
        theta=float(scaling.get("rope_theta") or raw.get("rope_theta") or 10000.0),
        rope_type=str(scaling.get("rope_type") or scaling.get("type") or "default"),
        factor=float(scaling.get("factor") or 1.0),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        original_max_position_embeddings=None if original is None else int(original),
        raw=dict(scaling),
    )


@dataclass(frozen=True, slots=True)
class _Required:
    """Looks up a key that must be there with the right type."""

    raw: dict[str, Any]
    where: str

    def __call__(self, key: str, kind: type) -> Any:
        value = self.raw.get(key)
        if value is None:
            raise ModelError(f"{self.where} lacks the required key {key!r}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(f"{self.where}: {key!r} must be of type {kind.__name__}, got {value!r}")
        return value
