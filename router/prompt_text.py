"""The text that placement compares: what the model will read, or a faithful stand-in for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.prompt import ModelError, TemplateError, load_prompt, resolve_model
from router.config import RouterConfig
from router.conversation import Join, conversation_bytes

log = logging.getLogger(__name__)

Render = Callable[..., str]  # ChatTemplate.render
Encode = Callable[[str, bool], list[int]]  # Tokenizer.encode: (text, whether special tokens are added) -> ids
_MAX_MODELS = 256
_REMEMBERED_BYTES = 2**20  # of texts whose length in tokens is known


@dataclass(slots=True)
class _Scale:
    """Bytes and tokens of the texts of one model, starting with a guess of four bytes a token.

    Sums, so that long texts count most: in a short one the template's own words hide the ratio.
    """

    text_bytes: float = 4096.0
    tokens: float = 1024.0

    def add(self, text_bytes: int, tokens: int) -> None:
        self.text_bytes += text_bytes
        self.tokens += tokens
        if self.text_bytes > _REMEMBERED_BYTES:
            self.text_bytes /= 2
            self.tokens /= 2


class PromptText:
    """Prompt texts and their lengths in tokens.

    ``render`` is the model's own chat template and ``encode`` its tokenizer, when the router has them.
    """

    def __init__(self, render: Render | None = None, encode: Encode | None = None) -> None:
        self._render = render
        self.encode = encode
        self._scales: dict[str, _Scale] = {}
        self._unseen = _Scale()

    @property
    def renders(self) -> bool:
        """Whether conversations go through a template, which has to see all of them."""
        return self._render is not None

    def chat(
        self,
        messages: Sequence[Any],
        tools: Any,
        arguments: Mapping[str, Any],
        continues: bool,
        join: Join = b"".join,
    ) -> bytes:
        """The conversation as the backend will see it. ``continues``: the model goes on with the last message."""
        if self._render is not None:
            try:
                text = self._render(messages, tools=tools or None, continue_final_message=continues, **arguments)
                return text.encode("utf-8", "surrogatepass")
            except (ValueError, TypeError, KeyError, AttributeError) as error:  # the backend will say what is wrong
                log.debug("the chat template refused a conversation; placing it by its plain form: %s", error)
        return conversation_bytes(messages, tools, arguments, continues, join)

    def plain(self, messages: Sequence[Any], tools: Any, join: Join = b"".join) -> bytes:
        """A conversation that no chat template knows (the Responses API, lists of texts). Instructions come first."""
        instructions, *rest = messages
        begin = [] if instructions is None else [{"role": "system", "content": instructions}]
        return conversation_bytes([*begin, *(item for item in rest if item is not None)], tools, join=join)

    def tokens(self, model: str, text: bytes) -> int:
        """How many tokens ``text`` has, as far as the answers of ``model`` have shown."""
        scale = self._scales.get(model, self._unseen)
        return round(len(text) * scale.tokens / scale.text_bytes)

    def learn(self, model: str, text_bytes: int, prompt_tokens: int) -> None:
        """An answer told the exact ``prompt_tokens`` of a text."""
        if not text_bytes or not prompt_tokens:
            return
        scale = self._scales.get(model)
        if scale is None and len(self._scales) < _MAX_MODELS:
            scale = self._scales[model] = _Scale()
        if scale is not None:
            scale.add(text_bytes, prompt_tokens)


class PromptTextError(Exception):
    """A model's tokenizer and chat template cannot be had; one sentence that says why."""


def load_prompt_text(config: RouterConfig) -> PromptText:
    """With the tokenizer and chat template that the backends of ``config`` use. Raises :class:`PromptTextError`."""
    where, revision = (config.tokenizer_path, None) if config.tokenizer_path else (config.model_path, config.revision)
    try:
        source = resolve_model(where, revision=revision, download_dir=config.download_dir, only="prompt")
        assets = load_prompt(source, config.chat_template)
    except (ModelError, TemplateError) as error:
        raise PromptTextError(str(error)) from None
    if assets.template is None:
        log.warning("placing requests without a chat template: %s has none", config.model_path)
    return PromptText(assets.template.render if assets.template else None, assets.tokenizer.encode)
