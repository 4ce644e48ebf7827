"""Which class serves which ``architectures`` entry of a model's configuration."""

from __future__ import annotations

import difflib
import importlib
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
    "Qwen2ForCausalLM": "backend.models.qwen2:Qwen2ForCausalLM",
    "Qwen3ForCausalLM": "backend.models.qwen3:Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM": "backend.models.qwen3_moe:Qwen3MoeForCausalLM",
}


def check_architecture(architecture: str) -> None:
    """``ValueError`` with the nearest known names when there is no class for ``architecture``."""
    if writing_architecture(architecture) in ARCHITECTURES:
        return
    near = difflib.get_close_matches(architecture, ARCHITECTURES, n=3, cutoff=0.0)
    others = sorted(set(ARCHITECTURES) - set(near))
    raise ValueError(
        f"architecture {architecture!r} is not supported; nearest: {', '.join(near)}; also known: {', '.join(others)}"
    )


def model_class(architecture: str) -> type[CausalLM]:
    """The class for ``architecture``; ``ValueError`` with the nearest known names otherwise."""
    check_architecture(architecture)
    module, name = ARCHITECTURES[writing_architecture(architecture)].split(":")
    found: type[CausalLM] = getattr(importlib.import_module(module), name)
    return found
