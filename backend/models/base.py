"""What every causal language model has in common: how it is called and how its weights find their places."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from backend.attention.base import AttentionBackend
from backend.layers import LMHead, MergedLinear
from backend.loader.model_config import ModelConfig


class WeightError(ValueError):
    """A checkpoint does not fit the model."""


class CausalLM(nn.Module):
    """Base of the models. Parameter names are the checkpoint's, but for merged matrices."""

    # merged layer -> the checkpoint's layers, in order
    merged: ClassVar[dict[str, tuple[str, ...]]] = {
        "qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "gate_up_proj": ("gate_proj", "up_proj"),
    }
    ignored_suffixes: ClassVar[tuple[str, ...]] = ("rotary_emb.inv_freq",)

    lm_head: LMHead

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, ids: torch.Tensor, positions: torch.Tensor, attention: AttentionBackend) -> torch.Tensor:
        """Hidden states ``[T, hidden]`` of the tokens ``ids`` (int64[T]) at ``positions`` (int64[T])."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 ``[R, vocab]`` for the hidden states ``[R, hidden]``."""
        return self.lm_head(hidden)

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy a checkpoint's tensors in. ``WeightError`` names what is missing, unexpected or of a wrong shape."""
        places = self._places()
        wanted = set(places)
        for name, tensor in weights:
            if name not in places:
                if not self._may_ignore(name):
                    raise WeightError(f"the checkpoint has a tensor that the model does not know: {name}")
                continue
            place = places[name]
            if place.shape != tensor.shape:
                raise WeightError(f"{name}: expected shape {tuple(place.shape)}, found {tuple(tensor.shape)}")
            place.copy_(tensor)
            wanted.discard(name)
        if wanted:
            raise WeightError(f"the checkpoint lacks {len(wanted)} tensors, among them {sorted(wanted)[0]}")

    def _places(self) -> dict[str, torch.Tensor]:
        """Checkpoint name -> the (part of a) parameter that it fills.

        A tied head is the embedding: it has no own place.
        """
        places: dict[str, torch.Tensor] = {}
        for path, module in self.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                parent, _, layer = path.rpartition(".")
                if isinstance(module, MergedLinear):
                    for part, source in enumerate(self.merged[layer]):
                        places[f"{parent}.{source}.{name}"] = parameter.data[module.rows_of(part)]
                elif not (path == "lm_head" and self.config.tie_word_embeddings):
                    places[f"{path}.{name}"] = parameter.data
        return places

    def _may_ignore(self, name: str) -> bool:
        tied = self.config.tie_word_embeddings and name == "lm_head.weight"
        return tied or name.endswith(self.ignored_suffixes)
