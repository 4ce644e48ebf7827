"""The text that placement compares: what the model will read, or a faithful stand-in for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backend.prompt import ModelError, TemplateError, load_prompt, resolve_model
from router.config import RouterConfig
from router.conversation import conversation_bytes

log = logging.getLogger(__name__)

Render = Callable[..., str]  # ChatTemplate.render
BYTES_PER_TOKEN = 4.0  # of a model whose answers have not told better yet
_MAX_MODELS = 256
_WEIGHT = 0.1  # of one answer in the running average


class PromptText:
    """Prompt texts and their lengths in tokens. ``render`` is the model's own chat template, when the router has it."""

    def __init__(self, render: Render | None = None) -> None:
        self._render = render
        self._bytes_per_token: dict[str, float] = {}

    def chat(self, messages: Sequence[Any], tools: Any, arguments: Mapping[str, Any], continues: bool) -> bytes:
        """The conversation as the backend will see it. ``continues``: the model goes on with the last message."""
        if self._render is not None:
            try:
                text = self._render(messages, tools=tools or None, continue_final_message=continues, **arguments)
                return text.encode("utf-8", "surrogatepass")
            except (ValueError, TypeError, KeyError, AttributeError) as error:  # the backend will say what is wrong
                log.debug("the chat template refused a conversation; placing it by its plain form: %s", error)
        return conversation_bytes(messages, tools)

    def plain(self, messages: Sequence[Any], tools: Any) -> bytes:
        """A conversation that no chat template knows (the Responses API, lists of texts)."""
        return conversation_bytes([message for message in messages if message is not None], tools)

    def tokens(self, model: str, text: bytes) -> int:
        """How many tokens ``text`` has, as far as the answers of ``model`` have shown."""
        return round(len(text) / self._bytes_per_token.get(model, BYTES_PER_TOKEN))

    def learn(self, model: str, text_bytes: int, prompt_tokens: int) -> None:
        """An answer told the exact ``prompt_tokens`` of a text."""
        if not text_bytes or not prompt_tokens:
            return
        seen = text_bytes / prompt_tokens
        known = self._bytes_per_token.get(model)
        if known is None and len(self._bytes_per_token) >= _MAX_MODELS:
            return
        self._bytes_per_token[model] = seen if known is None else known + _WEIGHT * (seen - known)


def load_prompt_text(config: RouterConfig) -> PromptText:
    """With the chat template of ``--model-path``; without it, after one warning, when it cannot be had."""
    try:
        source = resolve_model(
            config.model_path, revision=config.revision, download_dir=config.download_dir, only="prompt"
        )
        assets = load_prompt(source, config.chat_template)
    except (ModelError, TemplateError) as error:
        log.warning("placing requests without the model's chat template: %s", error)
        return PromptText()
    if assets.template is None:
        log.warning("placing requests without a chat template: %s has none", config.model_path)
    return PromptText(assets.template.render if assets.template else None)
