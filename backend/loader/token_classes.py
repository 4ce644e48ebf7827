"""A classifier's head made of a language head: rerankers such as Qwen3-Reranker answer with "yes" or "no".

``classifier_from_token`` in the configuration names the tokens. The difference of two logits is one number, whose
sigmoid is the second token's share of the two; other numbers of tokens are labels of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from backend.loader.model_config import ModelConfig
from backend.prompt import load_tokenizer
from backend.prompt.errors import ModelError
from backend.prompt.source import ModelSource

HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
SCORE = "score.weight"


def class_tokens(config: ModelConfig, tokenizer: ModelSource | str) -> list[int] | None:
    """The ids of the tokens that a classifier's head is made of; None where the checkpoint has a head of its own.

    ``tokenizer`` is where it comes from. Raises ModelError for a token that it does not have.
    """
    tokens = config.raw.get("classifier_from_token")
    if not tokens or config.classes is None:
        return None
    found = load_tokenizer(tokenizer)
    ids = [found.token_to_id(str(token)) for token in tokens]
    known = [each for each in ids if each is not None]
    if len(known) < len(ids):
        missing = [token for token, each in zip(tokens, ids, strict=True) if each is None]
        raise ModelError(f"classifier_from_token names what is no token of the model: {', '.join(map(repr, missing))}")
    return known


def score_from_head(
    weights: Iterable[tuple[str, torch.Tensor]], ids: Sequence[int], *, tied: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """``weights`` of a model that writes, with a score head of the rows ``ids`` in place of the language head."""
    for name, tensor in weights:
        if name == (EMBEDDING if tied else HEAD):
            rows = tensor[list(ids)].float()
            yield SCORE, rows[1:] - rows[:1] if len(ids) == 2 else rows
        if name != HEAD:
            yield name, tensor
