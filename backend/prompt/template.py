"""Chat templates: a conversation turned into the text that the model was trained to continue.

The result is what ``transformers`` gives for the same template, so a prompt's tokens, and with them the prefix cache,
do not depend on who rendered it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from backend.prompt.continuation import cut_after_mark, mark_final_message
from backend.prompt.dialect import Chat, probe_dialect
from backend.prompt.errors import TemplateError
from backend.prompt.jinja_env import chat_environment
from backend.prompt.messages import Message, drop_nulls, older_words, share_reasoning


class ChatTemplate:
    """A model's chat template, or several of them by name (``default``, ``tool_use``). Safe to use from any thread."""

    def __init__(self, template: str | Mapping[str, str], special_tokens: Mapping[str, str] | None = None) -> None:
        """``special_tokens`` (``bos_token``, ...) are visible to the template. Raises TemplateError for bad syntax."""
        sources = {"default": template} if isinstance(template, str) else dict(template)
        if not sources:
            raise TemplateError("the model lists no chat template; give one with --chat-template FILE")
        self.text = "\n".join(sources.values())  # of all variants
        self._variants = {name: _Variant(name, source, special_tokens or {}) for name, source in sources.items()}

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """The prompt's text. It carries its own BOS: encode it with ``add_special_tokens=False``.

        ``continue_final_message`` leaves the last message open for the model to go on with, and then no generation
        prompt is added. ``kwargs`` are further variables for the template. Raises TemplateError.
        """
        if not messages:
            raise TemplateError("the conversation is empty; give at least one message")
        variant = self._variant_for(tools)
        chat = older_words(share_reasoning(drop_nulls(messages)), variant.knows_developer)
        chat = variant.dialect.apply(chat)
        final_text = ""
        if continue_final_message:
            chat, final_text = mark_final_message(chat)
        text = variant.render(
            messages=chat,
            tools=None if tools is None else list(tools),
            documents=None if documents is None else list(documents),
            add_generation_prompt=add_generation_prompt and not continue_final_message,
            **kwargs,
        )
        return cut_after_mark(text, final_text) if continue_final_message else text

    def _variant_for(self, tools: Sequence[Mapping[str, Any]] | None) -> _Variant:
        name = "tool_use" if tools is not None and "tool_use" in self._variants else "default"
        if name not in self._variants:
            known = ", ".join(sorted(self._variants))
            raise TemplateError(
                f"the model has no default chat template, only: {known}; choose one with --chat-template"
            )
        return self._variants[name]


class _Variant:
    """One compiled template."""

    def __init__(self, name: str, source: str, special_tokens: Mapping[str, str]) -> None:
        try:
            self._compiled = chat_environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"chat template {name!r}, line {error.lineno}: {error.message}") from error
        # What every rendering starts from; the library would gather it anew each time.
        self._globals = {**self._compiled.globals, **special_tokens}
        self.dialect = probe_dialect(self._render_alone)
        self.knows_developer = "developer" in source

    def render(self, **variables: Any) -> str:
        try:
            context = self._compiled.new_context({**self._globals, **variables}, shared=True)
            return "".join(self._compiled.root_render_func(context))
        except Exception as error:  # a template is a program of its own: anything can go wrong inside
            raise TemplateError(f"the chat template refuses this conversation: {error}") from error

    def _render_alone(self, chat: Chat) -> str:
        return self.render(messages=chat, tools=None, documents=None, add_generation_prompt=False)


def read_template_argument(argument: str) -> str:
    """The template that ``--chat-template`` names: a file's content, or the argument itself when it is a template."""
    if "{{" in argument or "{%" in argument:
        return argument
    try:
        return Path(argument).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"--chat-template {argument!r} is neither a readable file nor a Jinja template: {error}"
        ) from error
