"""Which class serves which ``architectures`` entry of a model's configuration."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING

from backend.models.tasks import writing_architecture

if TYPE_CHECKING:
    from backend.models.base import CausalLM

ARCHITECTURES = {
    "DeepseekV2ForCausalLM": "backend.models.deepseek:DeepseekV2ForCausalLM",
    "DeepseekV3ForCausalLM": "backend.models.deepseek:DeepseekV3ForCausalLM",
    "Gemma2ForCausalLM": "backend.models.gemma:Gemma2ForCausalLM",
    "Gemma3ForCausalLM": "backend.models.gemma:Gemma3ForCausalLM",
    "GemmaForCausalLM": "backend.models.gemma:GemmaForCausalLM",
    "GptOssForCausalLM": "backend.models.gpt_oss:GptOssForCausalLM",
    "LlamaForCausalLM": "backend.models.llama:LlamaForCausalLM",
    "MistralForCausalLM": "backend.models.llama:LlamaForCausalLM",
    "MixtralForCausalLM": "backend.models.mixtral:MixtralForCausalLM",
    "Phi3ForCausalLM": "backend.models.phi3:Phi3ForCausalLM",
    "Phi4MMForCausalLM": "backend.models.phi4_multimodal:Phi4MultimodalForCausalLM",
    "Phi4MultimodalForCausalLM": "backend.models.phi4_multimodal:Phi4MultimodalForCausalLM",
    "Qwen2ForCausalLM": "backend.models.qwen2:Qwen2ForCausalLM",
    "Qwen3ForCausalLM": "backend.models.qwen3:Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM": "backend.models.qwen3_moe:Qwen3MoeForCausalLM",
}


def check_architecture(architecture: str) -> None:
    """``ValueError`` with the nearest known names when there is no class for ``architecture``."""
    if writing_architecture(architecture) in ARCHITECTURES:
        return
    near = nearest(architecture, ARCHITECTURES)
    others = sorted(set(ARCHITECTURES) - set(near))
    raise ValueError(
        f"architecture {architecture!r} is not supported; nearest: {', '.join(near)}; also known: {', '.join(others)}"
    )


def nearest(architecture: str, known: Iterable[str]) -> list[str]:
    """The three of ``known`` that are written most alike."""
    return difflib.get_close_matches(architecture, list(known), n=3, cutoff=0.0)


def runs_natively(architecture: str, model_impl: str) -> bool:
    """Whether a class of ours serves ``architecture``, or else ``transformers`` is to try.

    ``model_impl`` is ``native`` (``ValueError`` for an unknown one), ``transformers``, or ``auto``: what there is.
    """
    known = writing_architecture(architecture) in ARCHITECTURES
    if model_impl == "transformers":
        return False
    if not known and (model_impl == "native" or importlib.util.find_spec("transformers") is None):
        check_architecture(architecture)
    return known


def model_class(architecture: str) -> type[CausalLM]:
    """The class for ``architecture``; ``ValueError`` with the nearest known names otherwise."""
    check_architecture(architecture)
    module, name = ARCHITECTURES[writing_architecture(architecture)].split(":")
    found: type[CausalLM] = getattr(importlib.import_module(module), name)
    return found
