"""A GGUF file: its metadata, and where each tensor's bytes lie.

The ``gguf`` package has a reader as well; it makes several NumPy views for each of a vocabulary's 100,000 strings and
takes seconds to open a small model, so the header is parsed here. Types, block sizes and dequantisation are the
package's. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md,
versions 2 and 3, little endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from backend.prompt.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor's place in the file. ``shape`` is in NumPy order (rows first), ``offset`` is from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int

    @property
    def type_name(self) -> str:
        """The storage type's name, such as ``Q4_1``."""
        try:
            return GGMLQuantizationType(self.type).name
        except ValueError:
            return f"type {self.type}"


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """An opened GGUF file: ``metadata`` by key and ``tensors`` by name; the tensors' bytes stay on disk."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Parse the header of ``path``. Raises ModelError when it is not a whole GGUF file."""
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return cls(path, *_Header(data).read())
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error}") from error
        except (struct.error, ValueError) as error:
            raise ModelError(f"{path} is not a complete GGUF file: {error}") from error

    def raw(self, tensor: GGUFTensor) -> np.ndarray:
        """The tensor's stored bytes as uint8[rows..., bytes per row], mapped from the file."""
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
        except ValueError as error:
            raise ModelError(f"{self.path}: tensor {tensor.name} has the unknown type {tensor.type}") from error
        *rows, columns = tensor.shape
        if columns % block:
            raise ModelError(
                f"{self.path}: {tensor.name} has rows of {columns} values, {tensor.type_name} has blocks of {block}"
            )
        shape = (*rows, columns // block * size)
        data = np.memmap(self.path, mode="r")
        end = tensor.offset + math.prod(shape)
        if end > data.size:
            raise ModelError(f"{self.path} is cut short: {tensor.name} ends at byte {end}, the file at {data.size}")
        return data[tensor.offset : end].reshape(shape)


class _Header:
    """A cursor over the header's bytes. Every read past the end raises ``struct.error`` or ``ValueError``."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        if self.data[:4] != MAGIC:
            raise ValueError("it does not begin with 'GGUF'")
        self.at = 4
        version = self.scalar("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version} is not one of {VERSIONS}")
        tensor_count, key_count = self.scalar("Q"), self.scalar("Q")
        metadata = {self.string(): self.value(self.scalar("I")) for _ in range(key_count)}
        infos = [self.tensor_info() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        start = -(-self.at // alignment) * alignment
        return metadata, {name: GGUFTensor(name, shape, kind, start + at) for name, shape, kind, at in infos}

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        dimensions = [self.scalar("Q") for _ in range(self.scalar("I"))]
        return name, tuple(reversed(dimensions)), self.scalar("I"), self.scalar("Q")

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        end = self.at + length
        if end > len(self.data):
            raise ValueError(f"a string of {length} bytes at {self.at} runs past the end")
        text = str(self.data[self.at : end], "utf-8")
        self.at = end
        return text

    def value(self, kind: int) -> Any:
        kind = GGUFValueType(kind)
        if kind is GGUFValueType.STRING:
            return self.string()
        if kind is GGUFValueType.ARRAY:
            return self.array(GGUFValueType(self.scalar("I")), self.scalar("Q"))
        return self.scalar(_SCALARS[kind])

    def array(self, kind: GGUFValueType, count: int) -> list[Any]:
        if count > len(self.data) - self.at:
            raise ValueError(f"an array of {count} elements at {self.at} runs past the end")
        if kind not in _SCALARS:
            return [self.value(kind) for _ in range(count)]
        layout = f"<{count}{_SCALARS[kind]}"
        values = list(struct.unpack_from(layout, self.data, self.at))
        self.at += struct.calcsize(layout)
        return values
