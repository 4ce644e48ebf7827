"""Which class serves which ``architectures`` entry of a model's configuration."""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING

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
    "Qwen2ForCausalLM": "backend.models.qwen2:Qwen2ForCausalLM",
    "Qwen3ForCausalLM": "backend.models.qwen3:Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM": "backend.models.qwen3_moe:Qwen3MoeForCausalLM",
}


def model_class(architecture: str) -> type[CausalLM]:
    """The class for ``architecture``; ``ValueError`` with the nearest known name otherwise."""
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, n=1, cutoff=0.0)
        raise ValueError(
            f"architecture {architecture!r} is not supported; nearest: {near[0]}; known: {', '.join(ARCHITECTURES)}"
        )
    module, name = ARCHITECTURES[architecture].split(":")
    found: type[CausalLM] = getattr(importlib.import_module(module), name)
    return found
