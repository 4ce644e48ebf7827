"""What ``--tool-call-parser`` and ``--reasoning-parser`` may name; the parsers are in ``backend.api.parsers``."""

from __future__ import annotations

TOOL_CALL_PARSERS = (
    "llama3",
    "qwen",
    "hermes",
    "qwen25",
    "qwen3_coder",
    "mistral",
    "deepseekv3",
    "deepseekv31",
    "deepseekv32",
    "deepseekv4",
    "glm",
    "glm45",
    "glm47",
    "kimi_k2",
    "gemma4",
    "pythonic",
    "gpt-oss",
)
REASONING_PARSERS = (
    "deepseek-r1",
    "qwen3",
    "glm",
    "kimi",
    "mistral",
    "gemma",
    "qwen3-thinking",
    "glm45",
    "kimi_k2",
    "deepseek-v3",
    "gemma4",
    "gpt-oss",
)
