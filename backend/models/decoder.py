"""The decoder that the families share: embedding, layers, final norm, head. A family says what its layers are."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import nn

from backend.attention.base import AttentionBackend
from backend.layers import Embedding, GatedMLP, LMHead, RMSNorm, Rotary, RotaryTables, ScoreHead, chosen
from backend.loader.model_config import ModelConfig
from backend.models.base import CausalLM
from backend.models.tasks import Task


class DecoderLayer(nn.Module):
    """The usual layer: both blocks see a normalised input, and what they give is added to it.

    The addition belongs to the norm behind it, so that both are one pass. So a layer gets the sum ``x`` up to what the
    block before gave, which is ``delta``, and gives the sum up to its own last block, and what that gave.
    """

    def __init__(self, config: ModelConfig, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = mlp
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: torch.Tensor,
        delta: torch.Tensor | None,
        rotary: RotaryTables,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum and what is still to be added to it; behind attention only of the tokens ``kept``."""
        attended = self.self_attn(self.input_layernorm(x, delta), rotary, attention, kept)
        x = chosen(x, kept)
        return x, self.mlp(self.post_attention_layernorm(x, attended))


class Decoder(nn.Module):
    """Everything but the head; ``model.`` in the checkpoint."""

    def __init__(
        self, config: ModelConfig, layers: list[nn.Module], norm: type[RMSNorm], embedding_scale: float, rotated: int
    ) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, scale=embedding_scale)
        self.layers = nn.ModuleList(layers)
        self.norm = norm(config.hidden_size, config.rms_norm_eps)
        ropes = [config.rope_of(layer) for layer in range(config.num_layers)]
        kinds = [rope for i, rope in enumerate(ropes) if rope not in ropes[:i]]
        weight, positions = self.embed_tokens.weight, config.max_position_embeddings
        self.rotaries = [Rotary(rope, rotated, positions, weight.dtype, weight.device) for rope in kinds]
        self.rotary_of = [kinds.index(rope) for rope in ropes]

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        x = self.embed_tokens(ids)
        delta, last = None, self.layers[-1]
        tables = [rotary.tables(positions) for rotary in self.rotaries]
        for layer, kind in zip(self.layers, self.rotary_of, strict=True):
            x, delta = layer(x, delta, tables[kind], attention, kept if layer is last else None)
        return self.norm(x, delta)


class DecoderLM(CausalLM):
    """A decoder with a head. Families override ``layer``, and the few things around it that they do otherwise."""

    norm: ClassVar[type[RMSNorm]] = RMSNorm

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        layers = [self.layer(config, i) for i in range(config.num_layers)]
        self.model = Decoder(config, layers, self.norm, self.embedding_scale(config), self.rotated_size(config))
        self.lm_head = LMHead(config.vocab_size, config.hidden_size) if config.task is Task.GENERATE else None
        self.score = ScoreHead(len(config.classes.labels), config.hidden_size) if config.classes is not None else None
        if self.lm_head is not None and config.tie_word_embeddings:
            self.lm_head.tie(self.model.embed_tokens)

    @abstractmethod
    def layer(self, config: ModelConfig, index: int) -> nn.Module:
        """Layer ``index``: called as :class:`DecoderLayer` is."""

    def embedding_scale(self, config: ModelConfig) -> float:
        """What the embeddings are multiplied by."""
        return 1.0

    def rotated_size(self, config: ModelConfig) -> int:
        """The part of each head that positions may turn."""
        return config.head_dim

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        hidden: torch.Tensor = self.model(ids, positions, attention, kept)
        return hidden


def gated_mlp(config: ModelConfig, *, fused: bool = False) -> GatedMLP:
    """The feed-forward block of dense models."""
    return GatedMLP(config.hidden_size, config.intermediate_size, config.hidden_act, bias=config.mlp_bias, fused=fused)
