"""The one error that a client's request may end with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Self


class RequestError(ValueError):
    """A request that cannot be answered: what was wrong, with which value, and the HTTP status that says so."""

    def __init__(
        self,
        message: str,
        status: int = HTTPStatus.BAD_REQUEST,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = int(status)
        self.param = param  # the field to blame, if one
        self.code = code  # a machine-readable name such as "model_not_found"

    def renamed(self, names: Mapping[str, str]) -> Self:
        """The same error for a client that knows fields by other names: ``names[ours]`` is theirs."""
        words = [ours for ours in names if "_" in ours]  # no words of a sentence, such as "prompt"
        if words:
            pattern = rf"\b({'|'.join(words)})\b"
            self.message = re.sub(pattern, lambda found: names[found[1]], self.message)
        if self.param is not None and self.param in names:
            theirs = names[self.param]
            self.message = re.sub(rf"^{re.escape(self.param)}\b", lambda _: theirs, self.message)
            self.param = theirs
        self.args = (self.message,)
        return self
