"""ModelConfig: a model's architecture in one vocabulary, whether it came from config.json or from GGUF metadata."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import UnionType
from typing import Any, Self

from backend.config import ServerArgs
from backend.loader.classes import Classes, parse_classes
from backend.loader.families import layer_windows, refuse_bidirectional, with_defaults
from backend.loader.gguf_config import gguf_to_config
from backend.loader.model_sizes import check_sizes
from backend.loader.overrides import override
from backend.loader.rope_config import RopeConfig, parse_local_rope, parse_rope
from backend.loader.sentence_model import is_sentence_model
from backend.models.registry import runs_natively
from backend.models.tasks import Task, task_of
from backend.prompt.errors import ModelError
from backend.prompt.files import id_list, read_json
from backend.prompt.gguf_file import GGUFFile
from backend.prompt.source import ModelSource

__all__ = ["ModelConfig", "RopeConfig", "load_model_config", "parse_config"]

DEFAULT_ARGS = ServerArgs()
_STRETCHED = ("dynamic", "yarn")  # kinds of rope scaling that are often added without raising the declared context


@dataclass(frozen=True, slots=True)
class Reference:
    """A model that ``transformers`` runs: its own configuration, and what its layers ask of attention."""

    config: Any  # transformers.PretrainedConfig
    shapes: tuple[Any, ...]  # backend.attention.base.AttentionShape of each layer


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What building a model needs to know. ``raw`` is the whole config, completed, for what only one family has."""

    architecture: str  # such as LlamaForCausalLM
    model_type: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # of queries and keys as they are cached
    latent: int | None  # of multi-head latent attention: the cache holds one vector a token, whose front is the value
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeConfig
    local_rope: RopeConfig | None  # of the layers with a window, where it differs
    windows: tuple[int | None, ...]  # tokens that each layer sees, its own included; None: all
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    hidden_act: str
    dtype: str  # as declared: float32, bfloat16, float16
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    raw: dict[str, Any]
    reference: Reference | None = None  # not None: transformers runs it
    task: Task = Task.GENERATE
    classes: Classes | None = None  # of a classifier

    def rope_of(self, layer: int) -> RopeConfig:
        """The rotary parameters of ``layer``."""
        return self.rope if self.local_rope is None or self.windows[layer] is None else self.local_rope

    def family(self, key: str, kind: type | UnionType = int) -> Any:
        """The value of ``key``, which only some families have. Raises ModelError when it is missing."""
        return _Required(self.raw, f"the configuration of {self.architecture}")(key, kind)

    @property
    def longest_context(self) -> int:
        """Positions that the model can be served with: more than it declares where its rope scaling reaches further."""
        original, factor = self.rope.original_max_position_embeddings, self.rope.factor
        stretched = int(original * factor) if original and self.rope.rope_type in _STRETCHED else 0
        return max(self.max_position_embeddings, stretched)

    def limited(self, context_length: int | None) -> Self:
        """The same model with ``context_length`` positions, or as many as it has."""
        positions = min(context_length or self.max_position_embeddings, self.longest_context)
        return replace(self, max_position_embeddings=positions)


def load_model_config(source: ModelSource, args: ServerArgs = DEFAULT_ARGS) -> ModelConfig:
    """Read a model's configuration; ``args`` say what is changed in it, and who runs the model.

    Raises ModelError that names the file and what is wrong: an architecture that nobody knows, else a missing key.
    """
    try:
        config = _read_config(source, args)
    except ModelError:
        raise
    except (TypeError, AttributeError, ValueError) as error:  # its values are of any kind
        raise ModelError(f"{source.path}: the configuration has a value of a wrong kind: {error}") from error
    embeds = args.is_embedding or (source.kind == "folder" and is_sentence_model(source.path))
    return replace(config, task=Task.EMBED) if embeds and config.task is Task.GENERATE else config


def _read_config(source: ModelSource, args: ServerArgs) -> ModelConfig:
    if source.kind == "gguf":
        if args.model_impl == "transformers":
            raise ModelError(f"{source.path}: --model-impl transformers needs a model folder, not a GGUF file")
        raw = override(gguf_to_config(GGUFFile.open(source.path)), args.json_model_override_args)
        return parse_config(raw, where=str(source.path))
    path = source.path / "config.json"
    stored = read_json(path)
    if stored is None:
        raise ModelError(f"model folder {source.path} has no config.json")
    raw = override(stored, args.json_model_override_args)
    generation = read_json(source.path / "generation_config.json") or {}
    eos = [*id_list(raw.get("eos_token_id")), *id_list(generation.get("eos_token_id"))]
    raw = {**raw, "eos_token_id": list(dict.fromkeys(eos))}
    architecture = _foreign_architecture(raw, args.model_impl, str(path))
    if architecture is None:
        return parse_config(raw, where=str(path))
    from backend.models.fallback.config import transformers_config  # heavy, and rarely needed

    return transformers_config(raw, architecture, where=str(path))


def _foreign_architecture(raw: dict[str, Any], model_impl: str, where: str) -> str | None:
    """The architecture, where ``transformers`` is to run it. Before the keys: those of other families differ."""
    names = raw.get("architectures")
    if not isinstance(names, list) or not names:
        return None
    try:
        return None if runs_natively(str(names[0]), model_impl) else str(names[0])
    except ValueError as error:
        raise ModelError(f"{where}: {error}") from None


def parse_config(raw: dict[str, Any], where: str) -> ModelConfig:
    """A ModelConfig from the keys of a config.json, of transformers 4 or 5. ``where`` is named in errors."""
    raw = with_defaults(raw)
    refuse_bidirectional(raw, where)
    need = _Required(raw, where)
    architectures = need("architectures", list)
    if not architectures:
        raise ModelError(f"{where}: 'architectures' is empty; it must name the model's class, such as LlamaForCausalLM")
    hidden, heads, layers = (need(key, int) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    latent = raw.get("kv_lora_rank")
    check_sizes(raw, where)
    return ModelConfig(
        architecture=architectures[0],
        model_type=need("model_type", str),
        hidden_size=hidden,
        intermediate_size=need("intermediate_size", int),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=1 if latent else raw.get("num_key_value_heads") or heads,
        head_dim=latent + need("qk_rope_head_dim", int) if latent else raw.get("head_dim") or hidden // heads,
        latent=latent,
        vocab_size=need("vocab_size", int),
        max_position_embeddings=need("max_position_embeddings", int),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        rope=parse_rope(raw),
        local_rope=parse_local_rope(raw),
        windows=layer_windows(raw, layers, where),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        hidden_act=raw.get("hidden_activation") or raw.get("hidden_act", "silu"),
        dtype=str(raw.get("dtype") or raw.get("torch_dtype") or "float32").removeprefix("torch."),
        eos_token_ids=tuple(id_list(raw.get("eos_token_id"))),
        bos_token_id=next(iter(id_list(raw.get("bos_token_id"))), None),
        raw=raw,
        task=task_of(architectures[0]),
        classes=parse_classes(raw) if task_of(architectures[0]) is Task.CLASSIFY else None,
    )


@dataclass(frozen=True, slots=True)
class _Required:
    """Looks up a key that must be there with the right type."""

    raw: dict[str, Any]
    where: str

    def __call__(self, key: str, kind: type | UnionType) -> Any:
        value = self.raw.get(key)
        if value is None:
            raise ModelError(f"{self.where} lacks the required key {key!r}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(f"{self.where}: {key!r} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")
        return value
