"""Fetching a model's files from a Hugging Face hub: only the needed ones, and one clear line when it fails.

HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT and HF_HOME mean what they mean to ``huggingface_hub``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from backend.prompt.errors import HubUnreachable, ModelAccessError, ModelError, ModelNotFound

Selection = Literal["all", "prompt"]

PROMPT_FILES = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
]
WEIGHT_FILES = ["*.safetensors", "*.safetensors.index.json"]
# The same weights again, for other programs: a vendor's own layout at the top, or exports in folders.
DUPLICATE_WEIGHTS = ["consolidated*", "*/*.safetensors", "*/*.safetensors.index.json"]

_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+")


def is_hub_name(text: str) -> bool:
    """Whether ``text`` has the form ORG/NAME."""
    return _HUB_NAME.fullmatch(text) is not None


def fetch_snapshot(
    name: str, *, revision: str | None = None, download_dir: str | None = None, only: Selection = "all"
) -> Path:
    """Download ``name``'s files, or find them in the cache, and return their folder. Raises ModelError."""
    patterns = PROMPT_FILES if only == "prompt" else PROMPT_FILES + WEIGHT_FILES
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=download_dir,
            allow_patterns=patterns,
            ignore_patterns=DUPLICATE_WEIGHTS,
        )
    except Exception as error:  # besides its own errors, the client lets those of its HTTP library through
        raise _explain(error, name, revision) from error
    return Path(folder)


def _explain(error: Exception, name: str, revision: str | None) -> ModelError:
    """The user's error for what ``huggingface_hub`` raised. Order matters: a gated repository is a kind of missing."""
    if isinstance(error, GatedRepoError):
        return ModelAccessError(
            f"model {name!r} is gated: accept its terms on its page, then set HF_TOKEN to a token of that account"
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"model {name!r} has no revision {revision!r}; check --revision")
    if isinstance(error, RepositoryNotFoundError):
        return ModelNotFound(
            f"model {name!r} is neither a folder here nor on the hub; check the name, or set HF_TOKEN if it is private"
        )
    if isinstance(error, (LocalEntryNotFoundError, OfflineModeIsEnabled)):
        return HubUnreachable(_why_unreachable(error, name))
    if isinstance(error, HFValidationError):
        return ModelNotFound(f"model {name!r} is neither a folder here nor a valid hub name: {_first_line(error)}")
    if isinstance(error, HfHubHTTPError):
        return ModelError(f"the hub refused model {name!r}: {_first_line(error)}")
    return ModelError(f"model {name!r} could not be fetched: {_first_line(error)}")


def _why_unreachable(error: Exception, name: str) -> str:
    if isinstance(error, OfflineModeIsEnabled) or isinstance(error.__cause__, OfflineModeIsEnabled):
        return (
            f"model {name!r} is not in the cache and HF_HUB_OFFLINE forbids fetching it; "
            "unset HF_HUB_OFFLINE, or give the folder of a downloaded copy"
        )
    cause = error.__cause__ or error
    return (
        f"model {name!r} is not in the cache and the hub cannot be reached ({_first_line(cause)}); "
        "check the network and HF_ENDPOINT, or give the folder of a downloaded copy"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
