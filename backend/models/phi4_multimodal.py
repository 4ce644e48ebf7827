"""Phi-4-multimodal, its text part: Phi-3's decoder; the encoders and adapters of images and speech are left out."""

from __future__ import annotations

from backend.models.phi3 import Phi3ForCausalLM


class Phi4MultimodalForCausalLM(Phi3ForCausalLM):
    renames = {".base_layer.": "."}  # how checkpoints with adapters name the matrices that text alone uses

    def may_ignore(self, name: str) -> bool:
        return ".lora_" in name or "embed_tokens_extend." in name or super().may_ignore(name)
