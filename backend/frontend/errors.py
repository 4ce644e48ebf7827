"""The one error that a client's request may end with."""

from __future__ import annotations

from http import HTTPStatus


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
