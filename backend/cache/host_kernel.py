"""Copying pages between the GPU's memory and pinned memory of the host, which a kernel can read and write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 1024  # words


@triton.jit
def _copy(source, source_pages, target, pages, words, BLOCK: tl.constexpr):  # noqa: ANN001, ANN202
    page = tl.program_id(0)
    word = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = word < words
    begin = tl.load(source_pages + page).to(tl.int64) * words
    end = tl.load(pages + page).to(tl.int64) * words
    tl.store(target + end + word, tl.load(source + begin + word, mask=real), mask=real)


def copy_pages(source: torch.Tensor, source_pages: torch.Tensor, target: torch.Tensor, pages: torch.Tensor) -> None:
    """``target[pages] = source[source_pages]``; page numbers on the GPU, one of the tensors in pinned memory."""
    source, target = _words(source), _words(target)
    words = source.shape[1]
    _copy[len(pages), triton.cdiv(words, BLOCK)](source, source_pages, target, pages, words, BLOCK=BLOCK)


def _words(tensor: torch.Tensor) -> torch.Tensor:
    """``[pages, bytes of a page]`` in words as wide as they fit."""
    flat = tensor.flatten(1)
    return flat.view(torch.int64 if flat.shape[1] * flat.element_size() % 8 == 0 else torch.uint8)
