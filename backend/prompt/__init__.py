"""What turns a conversation into token ids: finding the model, its tokenizer, its chat template.

A leaf without torch and transformers, which the router imports as well, so that both see the same text.
"""

from backend.prompt.errors import ModelError, ModelNotFound, TemplateError
from backend.prompt.load import PromptAssets, encode_chat, load_prompt, load_tokenizer
from backend.prompt.source import ModelSource, resolve_model
from backend.prompt.template import ChatTemplate
from backend.prompt.tokenizer import Tokenizer

__all__ = [
    "ChatTemplate",
    "ModelError",
    "ModelNotFound",
    "ModelSource",
    "PromptAssets",
    "TemplateError",
    "Tokenizer",
    "encode_chat",
    "load_prompt",
    "load_tokenizer",
    "resolve_model",
]
