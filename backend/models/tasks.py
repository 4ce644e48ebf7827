"""What a model is for, by the name of its architecture: the same decoder under another head, or under none."""

from __future__ import annotations

from enum import StrEnum

_WRITES = "ForCausalLM"
_ALIASES = {"Gemma3Text": "Gemma3"}


class Task(StrEnum):
    """What a model's hidden states are turned into."""

    GENERATE = "generate"  # logits of the next token
    EMBED = "embed"  # nothing: they are the result
    CLASSIFY = "classify"  # one number for each label


_ENDINGS = {"ForSequenceClassification": Task.CLASSIFY, "Model": Task.EMBED}


def task_of(architecture: str) -> Task:
    """What a model of ``architecture`` is for."""
    return next((task for ending, task in _ENDINGS.items() if architecture.endswith(ending)), Task.GENERATE)


def writing_architecture(architecture: str) -> str:
    """The architecture with the same decoder that writes text: ``LlamaForCausalLM`` for ``LlamaModel``."""
    ending = next((ending for ending in _ENDINGS if architecture.endswith(ending)), None)
    if ending is None:
        return architecture
    family = architecture.removesuffix(ending)
    return _ALIASES.get(family, family) + _WRITES
