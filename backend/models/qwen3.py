"""Qwen3, dense: Llama's decoder with normalised queries and keys and a head size of its own."""

from __future__ import annotations

from dataclasses import replace

from backend.loader.model_config import ModelConfig
from backend.models.llama import LlamaForCausalLM


class Qwen3ForCausalLM(LlamaForCausalLM):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(replace(config, qk_norm=True))
