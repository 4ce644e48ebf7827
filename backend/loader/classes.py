"""The labels of a classifier, and how its numbers become scores. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]


def _identity(numbers: Numbers) -> Numbers:
    return numbers


def _sigmoid(numbers: Numbers) -> Numbers:
    return np.exp(-np.logaddexp(np.float32(0), -numbers))


def _softmax(numbers: Numbers) -> Numbers:
    weights = np.exp(numbers - numbers.max())
    scores: Numbers = weights / weights.sum()
    return scores


ACTIVATIONS: dict[str, Callable[[Numbers], Numbers]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
_OF_PROBLEM = {
    "regression": "identity",
    "multi_label_classification": "sigmoid",
    "single_label_classification": "softmax",
}


@dataclass(frozen=True, slots=True)
class Classes:
    """What a classifier's numbers stand for. A reward model or a reranker has one."""

    labels: tuple[str, ...]
    activation: str  # one of ACTIVATIONS

    def scores(self, numbers: Numbers) -> Numbers:
        """The model's numbers ``float32[labels]`` as the scores that it was trained for."""
        return ACTIVATIONS[self.activation](numbers)


def parse_classes(raw: dict[str, Any]) -> Classes:
    """The classes of a config.json: ``id2label``, else ``num_labels``, else two, as in transformers.

    A head that is made of tokens of the vocabulary (``classifier_from_token``) has those, but of two it has one.
    """
    names, tokens = raw.get("id2label"), raw.get("classifier_from_token")
    labels: tuple[str, ...]
    if tokens:
        labels = ("LABEL_0",) if len(tokens) == 2 else tuple(map(str, tokens))
    elif isinstance(names, dict) and names:
        labels = tuple(str(name) for _, name in sorted(names.items(), key=lambda pair: int(pair[0])))
    else:
        labels = tuple(f"LABEL_{i}" for i in range(int(raw.get("num_labels") or 2)))
    return Classes(labels, _activation(raw, len(labels)))


def _activation(raw: dict[str, Any], count: int) -> str:
    """What sentence-transformers stores for a cross-encoder, else by the kind of problem, as pipelines choose it."""
    stored = (raw.get("sentence_transformers") or {}).get("activation_fn")
    named = str(stored or raw.get("sbert_ce_default_activation_function") or "").rpartition(".")[2].lower()
    if named in ACTIVATIONS:
        return named
    return _OF_PROBLEM.get(str(raw.get("problem_type")), "sigmoid" if count == 1 else "softmax")
