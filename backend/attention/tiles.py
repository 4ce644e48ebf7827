"""Sizes of the tiles that the Triton kernels work on, for one shape of attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backend.attention.base import AttentionShape

SMALLEST = 16  # of either side of a matrix product


@dataclass(frozen=True, slots=True)
class Tiles:
    """``_n`` counts keys, ``_m`` queries times heads of a group; warps and stages are those of a program."""

    front: int  # numbers of a key that a tile holds: all, or those that are the value as well
    rest: int  # those behind them, in latent attention
    decode_h: int  # heads of a group in one decode program
    decode_n: int
    decode_warps: int
    decode_stages: int
    prefill_m: int
    prefill_n: int
    prefill_warps: int
    prefill_stages: int

    def head_blocks(self, shape: AttentionShape) -> int:
        """Decode programs for one group of heads."""
        return -(-(shape.num_heads // shape.num_kv_heads) // self.decode_h)


def choose_tiles(shape: AttentionShape, dtype: torch.dtype) -> Tiles:
    """Tiles for keys and values of ``dtype``; larger heads and wider numbers take smaller ones."""
    value_dim = shape.value_dim or shape.head_dim
    front = padded(value_dim)
    decode_h = min(padded(shape.num_heads // shape.num_kv_heads), 64)
    decode = (64, 4, 3) if front <= 128 else (32, 4, 3) if front <= 256 else (32, 8, 2)
    if dtype.itemsize == 1 and front <= 128:
        decode = (128, 4, 2)  # as many bytes as of 16 bits; measured on an H200
    prefill = (128, 64, 8, 3) if front <= 128 else (64, 64, 8, 2) if front <= 256 else (64, 32, 8, 2)
    shrink = 2 if dtype.itemsize > 2 else 1
    return Tiles(
        front=front,
        rest=padded(shape.head_dim - value_dim),
        decode_h=decode_h,
        decode_n=max(decode[0] // shrink, SMALLEST),
        decode_warps=decode[1],
        decode_stages=decode[2],
        prefill_m=prefill[0] // shrink,
        prefill_n=max(prefill[1] // shrink, SMALLEST),
        prefill_warps=prefill[2],
        prefill_stages=prefill[3],
    )


def padded(size: int) -> int:
    """The next power of two that a matrix product takes."""
    return max(1 << (size - 1).bit_length(), SMALLEST) if size > 0 else SMALLEST
