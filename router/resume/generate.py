"""Streams of ``/generate``: each event repeats the whole text and all output ids, or brings the new ones only."""

from __future__ import annotations

from typing import Any

from router.resume.plan import Plan
from router.resume.transcript import Transcript

NEW_TOKENS = 128  # of a request that names no number


class GenerateTranscript(Transcript):
    """The prompt grows by the text, or by the output ids when it is made of ids."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._ids: list[int] | None = None
        self._incremental = False
        self._meta: dict[str, Any] = {}  # id and sizes of the prompt, as the first backend said
        self._text_before = ""
        self._ids_before: list[int] = []

    def _note(self, fields: dict[str, Any]) -> None:
        text, ids = fields.get("text") or "", fields.get("output_ids")
        if not isinstance(text, str):
            raise TypeError("several texts")
        if not self._incremental and self.text and not text.startswith(self.text):
            self._incremental = True
        self.text = self.text + text if self._incremental else text
        if isinstance(ids, list):
            self._ids = [*(self._ids or ()), *ids] if self._incremental else ids
        meta = fields.get("meta_info") or {}
        if not self._meta:
            self._meta = {name: meta[name] for name in ("id", "prompt_tokens", "cached_tokens") if name in meta}
        if isinstance(meta.get("completion_tokens"), int):
            self._sent = meta["completion_tokens"]
        elif self._ids is not None:
            self._sent = len(self._ids)
        if meta.get("finish_reason") is not None:
            self.finished = True

    def _resuming(self, sent: int) -> None:
        self._text_before = self.text
        self._ids_before = list(self._ids or ())

    def _fit(self, fields: dict[str, Any]) -> dict[str, Any] | None:
        if self._full:
            fields["text"] = ""
            fields["output_ids"] = []
        if not self._incremental:
            fields["text"] = self._text_before + (fields.get("text") or "")
            if isinstance(ids := fields.get("output_ids"), list):
                fields["output_ids"] = [*self._ids_before, *ids]
        if isinstance(meta := fields.get("meta_info"), dict):
            self._fit_meta(meta)
        self._note(fields)
        return fields

    def _fit_meta(self, meta: dict[str, Any]) -> None:
        meta.update(self._meta)
        if isinstance(count := meta.get("completion_tokens"), int):
            meta["completion_tokens"] = self._before + (0 if self._full else count)
        reason = meta.get("finish_reason")
        if isinstance(reason, dict) and self._full:
            meta["finish_reason"] = {"type": "length", "length": self._before}
        elif isinstance(reason, dict) and isinstance(reason.get("length"), int):
            reason["length"] += self._before

    def _continuation(self, sent: int, tokens: list[int] | None) -> dict[str, Any] | None:
        sampling = dict(self._fields.get("sampling_params") or {})
        limit = sampling.get("max_new_tokens")
        left = (limit if isinstance(limit, int) else NEW_TOKENS) - sent
        self._full = left <= 0
        sampling["max_new_tokens"] = max(1, left)
        if isinstance(least := sampling.get("min_new_tokens"), int):
            sampling["min_new_tokens"] = max(0, least - sent)
        body = {**self._fields, "sampling_params": sampling}
        body.pop("rid", None)  # the first backend may still know it
        if isinstance(prompt := body.get("text"), str):
            return {**body, "text": prompt + self.text}
        ids = self._ids if self._ids is not None else tokens
        if self.text and ids is None:
            return None
        return {**body, "input_ids": [*body["input_ids"], *(ids or ())]}
