"""Everything a prompt needs, loaded from one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.prompt.errors import TemplateError
from backend.prompt.folder_tokenizer import read_folder_tokenizer
from backend.prompt.gguf_file import GGUFFile
from backend.prompt.gguf_tokenizer import read_gguf_tokenizer
from backend.prompt.messages import Message
from backend.prompt.source import ModelSource, resolve_model
from backend.prompt.template import ChatTemplate, read_template_argument
from backend.prompt.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PromptAssets:
    """A model's tokenizer, and its chat template when it has one."""

    tokenizer: Tokenizer
    template: ChatTemplate | None

    def require_template(self) -> ChatTemplate:
        """The template; raises TemplateError when the model has none."""
        if self.template is None:
            raise TemplateError("this model has no chat template; start the server with --chat-template FILE")
        return self.template


def load_tokenizer(source: ModelSource | Path | str) -> Tokenizer:
    """The tokenizer of a model, or of a folder, GGUF file or hub name. Raises ModelError."""
    if not isinstance(source, ModelSource):
        source = resolve_model(str(source), only="prompt")
    if source.kind == "gguf":
        return read_gguf_tokenizer(GGUFFile.open(source.path))
    return read_folder_tokenizer(source.path)


def load_prompt(
    source: ModelSource | Path | str, chat_template: str | None = None, tokenizer_path: str | None = None
) -> PromptAssets:
    """Tokenizer and chat template of a model.

    ``chat_template`` replaces the model's own: a file's path, or the template itself. ``tokenizer_path`` (a folder,
    GGUF file or hub name) is where both come from in place of the model.
    Raises ModelError for the tokenizer, TemplateError for a template that does not parse.
    """
    tokenizer = load_tokenizer(source if tokenizer_path is None else tokenizer_path)
    template = tokenizer.chat_template if chat_template is None else read_template_argument(chat_template)
    return PromptAssets(tokenizer, None if template is None else ChatTemplate(template, tokenizer.special_tokens))


def encode_chat(assets: PromptAssets, messages: Sequence[Message], **options: Any) -> list[int]:
    """Token ids of a conversation; ``options`` are those of ``ChatTemplate.render``. Raises TemplateError.

    The template writes the BOS itself where the model wants one, so encoding adds none.
    """
    text = assets.require_template().render(messages, **options)
    return assets.tokenizer.encode(text, add_special_tokens=False)
