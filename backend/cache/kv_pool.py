"""Storage of keys and values, one pair of page tensors per layer."""

from __future__ import annotations

import torch


class KVPool:
    """Paged keys and values.

    ``keys[layer]`` and ``values[layer]`` are ``[num_pages + 1, page_size, kv_heads, head_dim]`` (NHD); page
    ``PADDING_PAGE`` (0) takes the writes of padding rows. A token's location is ``page * page_size + offset``.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_pages: int,
        page_size: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (num_pages + 1, page_size, kv_heads, head_dim)
        self.page_size = page_size
        self.num_pages = num_pages
        # Zeros, not empty: masked scores times an uninitialised NaN would still be NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]

    @staticmethod
    def bytes_per_token(num_layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        return 2 * num_layers * kv_heads * head_dim * dtype.itemsize

    def store(self, layer: int, locations: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write ``keys`` and ``values`` ``[T, kv_heads, head_dim]`` at ``locations`` (int64[T])."""
        self.keys[layer].flatten(0, 1).index_copy_(0, locations, keys)
        self.values[layer].flatten(0, 1).index_copy_(0, locations, values)
