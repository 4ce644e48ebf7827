"""Token embeddings, the output head, which may share their matrix, and the head of classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from backend.layers.ops import Product


class Embedding(nn.Module):
    """``weight`` is ``[vocab_size, hidden_size]``; what it gives is multiplied by ``scale``."""

    def __init__(self, vocab_size: int, hidden_size: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size), requires_grad=False)
        # Rounded as the model that was trained with it rounds it.
        self.scale = None if scale == 1.0 else torch.tensor(scale).to(self.weight.device)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        embedded = F.embedding(ids, self.weight)
        return embedded if self.scale is None else embedded * self.scale


class LMHead(nn.Module):
    """Hidden states to logits; ``weight`` is ``[vocab_size, hidden_size]``."""

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size), requires_grad=False)
        self.product: Product = F.linear

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.product(hidden, self.weight, None)

    def tie(self, embedding: Embedding) -> None:
        """Use the matrix of ``embedding``."""
        self.weight = embedding.weight


class ScoreHead(nn.Module):
    """A prompt's hidden states to one number for each label; ``weight`` is ``[labels, hidden_size]``, in float32."""

    def __init__(self, labels: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, hidden_size, dtype=torch.float32), requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.linear(hidden.float(), self.weight)
