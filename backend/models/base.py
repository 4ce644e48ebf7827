"""What every causal language model has in common: how it is called and how its weights find their places."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import nn

from backend.attention.base import AttentionBackend, AttentionShape
from backend.layers import Experts, LMHead, MergedLinear, PagedAttention, ScoreHead
from backend.loader.copies import Copies
from backend.loader.model_config import ModelConfig
from backend.models.tasks import Task


class WeightError(ValueError):
    """A checkpoint does not fit the model."""


class CausalLM(nn.Module):
    """Base of the models. Parameter names are the checkpoint's, but for merged matrices."""

    # parts of the checkpoint's names -> ours, where they differ
    renames: ClassVar[dict[str, str]] = {}
    ignored_suffixes: ClassVar[tuple[str, ...]] = ("rotary_emb.inv_freq",)

    lm_head: LMHead | None  # None: the model writes no text
    score: ScoreHead | None  # of a classifier

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.lm_head = self.score = None

    @abstractmethod
    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Hidden states ``[T, hidden]`` of the tokens ``ids`` (int64[T]) at ``positions`` (int64[T]).

        With ``kept`` (int64[K], not empty) only those tokens': what is behind the last attention is computed for them.
        """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """``[R, vocab]`` for hidden states ``[R, hidden]``, in the dtype of the weights; ``[R, 0]`` without a head."""
        return hidden.new_empty(len(hidden), 0) if self.lm_head is None else self.lm_head(hidden)

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Float32, one number for each label, for the hidden states of a prompt's last token."""
        if self.score is None:
            raise ValueError(f"{self.config.architecture} has no labels")
        return self.score(hidden)

    @property
    def captures(self) -> bool:
        """Whether a CUDA graph may hold a step: what runs does not depend on values that only the device knows."""
        experts = [module for module in self.modules() if isinstance(module, Experts)]
        return self.lm_head is not None and all(module.captures for module in experts)

    @property
    def couples_rows(self) -> bool:
        """Whether the last bits of a token's result may depend on the tokens that are computed beside it."""
        return any(isinstance(module, Experts) for module in self.modules())

    def attention_shapes(self) -> list[AttentionShape]:
        """One for each layer, in order."""
        return [module.shape for module in self.modules() if isinstance(module, PagedAttention)]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy a checkpoint's tensors in. ``WeightError`` names what is missing, unexpected or of a wrong shape."""
        places = self._places()
        wanted = set(places)
        with Copies() as copies:
            for stored_name, tensor in weights:
                name = self._renamed(stored_name)
                if name not in places:
                    if not self.may_ignore(name):
                        raise WeightError(f"the checkpoint has a tensor that the model does not know: {stored_name}")
                    continue
                place = places[name]
                if place.shape != tensor.shape:
                    expected, found = tuple(place.shape), tuple(tensor.shape)
                    raise WeightError(f"{stored_name}: expected shape {expected}, found {found}")
                copies.copy(place, tensor)
                wanted.discard(name)
        if wanted:
            raise WeightError(f"the checkpoint lacks {len(wanted)} tensors, among them {sorted(wanted)[0]}")

    def _places(self) -> dict[str, torch.Tensor]:
        """Checkpoint name -> the (part of a) parameter that it fills.

        A tied head is the embedding: it has no own place.
        """
        places: dict[str, torch.Tensor] = {}
        for path, module in self.named_modules():
            if isinstance(module, MergedLinear | Experts):
                places.update(module.places(path))
            elif not (path == "lm_head" and self.config.tie_word_embeddings):
                own = module.named_parameters(recurse=False)
                places.update((f"{path}.{name}", parameter.data) for name, parameter in own)
        return places

    def _renamed(self, name: str) -> str:
        for theirs, ours in self.renames.items():
            name = name.replace(theirs, ours)
        bare = self.config.task is Task.EMBED and not name.startswith(("model.", "lm_head."))
        return f"model.{name}" if bare else name

    def may_ignore(self, name: str) -> bool:
        """Whether the checkpoint's tensor ``name`` is of no use to the model."""
        unused = self.lm_head is None or self.config.tie_word_embeddings
        return (unused and name == "lm_head.weight") or name.endswith(self.ignored_suffixes)
