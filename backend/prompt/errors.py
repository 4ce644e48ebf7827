"""Errors about a model's files. Their messages are written for the person who typed the model's name."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be found, fetched or read."""


class ModelNotFound(ModelError):
    """The model path names nothing that exists."""


class ModelAccessError(ModelError):
    """The model exists, but it is gated or private and the token does not open it."""


class HubUnreachable(ModelError):
    """The model is not on this machine, and the hub cannot be asked for it."""


class TemplateError(ValueError):
    """A chat template is missing, broken, or refuses the conversation."""
