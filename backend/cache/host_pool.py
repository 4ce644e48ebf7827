"""Storage of the host tier: the same pages as on the device, in the host's memory."""

from __future__ import annotations

import torch

from backend.cache.kv_pool import KVPool


class HostPool:
    """Copies of a device pool's pages. ``layers[layer]`` has one tensor ``[num_pages + 1, ...]`` for each of the
    device's; page 0 stays unused, as there. The memory is pinned beside a GPU, so that copies need not stop anybody.
    ``MemoryError`` when it cannot be had.
    """

    def __init__(self, pool: KVPool, num_pages: int) -> None:
        pinned = pool.keys[0].device.type == "cuda"
        self.num_pages = num_pages
        try:
            self.layers = [
                tuple(
                    torch.empty((num_pages + 1, *tensor.shape[1:]), dtype=tensor.dtype, pin_memory=pinned)
                    for tensor in pool.storage(layer)
                )
                for layer in range(len(pool.keys))
            ]
        except RuntimeError as error:
            kind = "pinned memory" if pinned else "memory"
            raise MemoryError(
                f"the host tier found no {kind} for {num_pages} pages; lower --hicache-ratio or --hicache-size"
            ) from error
