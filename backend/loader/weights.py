"""A model's weights, one tensor at a time, under their Hugging Face names."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import torch
from tqdm import tqdm

from backend.loader.gguf_weights import iterate_gguf
from backend.loader.model_config import ModelConfig
from backend.loader.safetensors_weights import iterate_safetensors
from backend.prompt.errors import ModelError
from backend.prompt.source import ModelSource

_FORMAT_OF_KIND = {"folder": "safetensors", "gguf": "gguf"}
_SHOW_PROGRESS_AFTER_S = 2.0
_DUMMY_BOUND = 0.035  # a uniform distribution this wide has the usual initial standard deviation of 0.02


def iterate_weights(
    source: ModelSource, config: ModelConfig, load_format: str = "auto"
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, CPU tensor): safetensors as stored, GGUF dequantised to float32 (F16 and BF16 as stored).

    ``load_format`` is auto, safetensors or gguf; dummy weights come from ``dummy_weights``.
    Raises ModelError when the format does not fit the source or a file is missing, broken or of an unknown type.
    """
    stored = _FORMAT_OF_KIND[source.kind]
    if load_format not in ("auto", stored):
        raise ModelError(f"--load-format {load_format} does not fit {source.path}, which holds {stored}")
    if source.kind == "gguf":
        total, weights = iterate_gguf(source.path, config)
    else:
        total, weights = iterate_safetensors(source.path)
    return _with_progress(weights, total)


def _with_progress(weights: Iterable[tuple[str, torch.Tensor]], total: int) -> Iterator[tuple[str, torch.Tensor]]:
    yield from tqdm(
        weights, desc="loading weights", total=total, unit="tensor", delay=_SHOW_PROGRESS_AFTER_S, leave=False
    )


@torch.no_grad()
def dummy_weights(named_parameters: Iterable[tuple[str, torch.Tensor]], seed: int = 0) -> None:
    """Fill parameters in place with small random values: norms one, biases zero, the rest uniform.

    The values depend on the seed, the name, the shape, the dtype and the kind of device, not on the order.
    """
    for name, parameter in named_parameters:
        if name.endswith("norm.weight"):
            parameter.fill_(1.0)
        elif name.endswith(".bias"):
            parameter.zero_()
        else:
            generator = torch.Generator(parameter.device).manual_seed(seed ^ zlib.crc32(name.encode()))
            parameter.uniform_(-_DUMMY_BOUND, _DUMMY_BOUND, generator=generator)
