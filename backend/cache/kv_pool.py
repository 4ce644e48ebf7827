"""Storage of keys and values, one pair of page tensors per layer."""

from __future__ import annotations

import torch


class KVPool:
    """Paged keys and values.

    ``keys[layer]`` and ``values[layer]`` are ``[num_pages + 1, page_size, kv_heads, head_dim]`` (NHD); page
    ``PADDING_PAGE`` (0) takes the writes of padding rows. A token's location is ``page * page_size + offset``.
    With ``latent`` (multi-head latent attention) the values are the first ``latent`` numbers of the keys: views.
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
        latent: int | None = None,
    ) -> None:
        shape = (num_pages + 1, page_size, kv_heads, head_dim)
        self.page_size = page_size
        self.num_pages = num_pages
        # Zeros, not empty: masked scores times an uninitialised NaN would still be NaN.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.latent = latent
        if latent is None:
            self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        else:
            self.values = [keys[..., :latent] for keys in self.keys]

    def storage(self, layer: int) -> tuple[torch.Tensor, ...]:
        """The tensors that hold the pages of ``layer``."""
        return (self.keys[layer],) if self.latent is not None else (self.keys[layer], self.values[layer])

    @staticmethod
    def bytes_per_token(
        num_layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, latent: int | None = None
    ) -> int:
        return (2 if latent is None else 1) * num_layers * kv_heads * head_dim * dtype.itemsize

    def store(self, layer: int, locations: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write ``keys`` and ``values`` ``[T, kv_heads, head_dim]`` at ``locations`` (int64[T])."""
        self.keys[layer].flatten(0, 1).index_copy_(0, locations, keys)
        if self.latent is None:
            self.values[layer].flatten(0, 1).index_copy_(0, locations, values)
