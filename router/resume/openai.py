"""Streams of OpenAI's chat and text completions."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from router.resume.plan import Plan
from router.resume.transcript import Transcript

COMPLETION_TOKENS = 16  # of a text completion that names no number


class OpenAITranscript(Transcript):
    """What both have in common: events with ``id``, ``created``, one choice and, at the end, ``usage``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._names: dict[str, Any] = {}  # id, created and model of the first event

    def _note(self, fields: dict[str, Any]) -> None:
        if not self._names:
            self._names = {name: fields[name] for name in ("id", "created", "model") if name in fields}
        usage = fields.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            self._sent = usage["completion_tokens"]
        for choice in fields.get("choices") or ():
            before = self.text
            self._note_choice(choice)
            if self.text != before and not isinstance(usage, dict):
                self._sent = None  # the count of an earlier event is out of date
            if choice.get("finish_reason") is not None:
                self.finished = True

    def _fit(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        fields.update(self._names)
        usage = fields.get("usage")
        if isinstance(usage, dict):
            fields["usage"] = self._whole(usage)
        choices = fields.get("choices") or []
        kept = [choice for choice in choices if self._fit_choice(choice)]
        for choice in kept:
            if self._full and choice.get("finish_reason") is not None:
                choice["finish_reason"] = "length"
        self._note(fields)
        if choices and not kept and not isinstance(usage, dict):
            return None
        fields["choices"] = kept
        return fields

    def _whole(self, usage: dict[str, Any]) -> dict[str, Any]:
        """The usage of the whole stream: what was sent before is answer, not prompt."""
        prompt = max(0, int(usage.get("prompt_tokens") or 0) - self._before)
        completion = self._before + (0 if self._full else int(usage.get("completion_tokens") or 0))
        whole = {**usage, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(cached := details.get("cached_tokens"), int):
            whole["prompt_tokens_details"] = {**details, "cached_tokens": min(cached, prompt)}
        return whole

    def _reduce(self, body: dict[str, Any], names: tuple[str, ...], sent: int) -> None:
        """Take what was sent off the limits on the answer's length."""
        for name in names:
            if isinstance(limit := body.get(name), int):
                self._full |= limit <= sent
                body[name] = max(1, limit - sent)
        if isinstance(least := body.get("min_tokens"), int):
            body["min_tokens"] = max(0, least - sent)

    @abstractmethod
    def _note_choice(self, choice: dict[str, Any]) -> None:
        """Add a choice's text."""

    @abstractmethod
    def _fit_choice(self, choice: dict[str, Any]) -> bool:
        """Change a choice of the backend that took over. False when nothing is left of it."""


class ChatTranscript(OpenAITranscript):
    """The assistant's turn is continued."""

    def _note_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        for name in ("tool_calls", "function_call", "reasoning_content", "reasoning"):
            if delta.get(name):
                self.spoiled = f"it has {name}"
        self.text += delta.get("content") or ""

    def _fit_choice(self, choice: dict[str, Any]) -> bool:
        delta = choice.get("delta") or {}
        delta.pop("role", None)
        if self._full:
            delta.pop("content", None)
        return bool(delta.get("content")) or choice.get("finish_reason") is not None

    def _continuation(self, sent: int, tokens: list[int] | None) -> dict[str, Any] | None:
        body = dict(self._fields)
        self._reduce(body, ("max_tokens", "max_completion_tokens"), sent)
        if not self.text:
            return body
        messages = list(body["messages"])
        if body.get("continue_final_message"):
            messages[-1] = {**messages[-1], "content": messages[-1]["content"] + self.text}
        else:
            messages.append({"role": "assistant", "content": self.text})
        return {**body, "messages": messages, "continue_final_message": True, "add_generation_prompt": False}


class CompletionsTranscript(OpenAITranscript):
    """The prompt grows by the text."""

    def _note_choice(self, choice: dict[str, Any]) -> None:
        self.text += choice.get("text") or ""

    def _fit_choice(self, choice: dict[str, Any]) -> bool:
        if self._full:
            choice["text"] = ""
        return bool(choice.get("text")) or choice.get("finish_reason") is not None

    def _continuation(self, sent: int, tokens: list[int] | None) -> dict[str, Any] | None:
        body = {**self._fields}
        if body.get("max_tokens") is None:
            body["max_tokens"] = COMPLETION_TOKENS
        self._reduce(body, ("max_tokens",), sent)
        if isinstance(prompt := body["prompt"], str):
            return {**body, "prompt": prompt + self.text}
        if self.text and tokens is None:
            return None  # a prompt of ids goes on with ids
        return {**body, "prompt": [*prompt, *(tokens or ())]}
