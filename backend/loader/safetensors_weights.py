"""Weights from the safetensors files of a model folder, sharded or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from backend.prompt.errors import ModelError
from backend.prompt.files import read_json

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def iterate_safetensors(folder: Path) -> tuple[int, Iterator[tuple[str, torch.Tensor]]]:
    """The number of tensors in ``folder``, and an iterator over (name, tensor) in stored dtype. Raises ModelError."""
    files = _weight_files(folder)
    return sum(_count(path) for path in files), (pair for path in files for pair in _read(path))


def _weight_files(folder: Path) -> list[Path]:
    index = read_json(folder / _INDEX)
    if index is not None:
        return _shards(folder, index)
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    files = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("consolidated"))
    if not files:
        raise ModelError(
            f"model folder {folder} has no .safetensors weights; convert the model, or try it with --load-format dummy"
        )
    return files


def _shards(folder: Path, index: dict) -> list[Path]:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(n, str) for n in weight_map.values()):
        raise ModelError(f"{folder / _INDEX} has no 'weight_map' of tensors to files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelError(f"{folder / _INDEX} names a file outside its folder: {name}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"model folder {folder} lacks {len(missing)} of {len(names)} weight files: {', '.join(missing)}; "
            "complete the download"
        )
    return [folder / name for name in names]


def _count(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            return len(file.keys())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a complete safetensors file: {error}") from error


def _read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (not a dict, and not iterable itself)
            yield name, file.get_tensor(name)
