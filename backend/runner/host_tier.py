"""How large the host tier of the prefix cache is."""

from __future__ import annotations

import torch

from backend.cache.host_tree import HostSettings
from backend.config import ServerArgs
from backend.models.build import size
from backend.runner.device import free_memory

GIGABYTE = 10**9


def host_tier(args: ServerArgs, device_pages: int, page_bytes: int) -> HostSettings | None:
    """The tier that the settings ask for, if they do. ``ValueError`` when it would be empty or does not fit."""
    if not args.enable_hierarchical_cache:
        return None
    if args.disable_radix_cache:
        raise ValueError("--enable-hierarchical-cache keeps what the prefix cache evicts: drop --disable-radix-cache")
    flag = f"--hicache-size {args.hicache_size}" if args.hicache_size else f"--hicache-ratio {args.hicache_ratio:g}"
    pages = args.hicache_size * GIGABYTE // page_bytes if args.hicache_size else int(device_pages * args.hicache_ratio)
    if pages < 1:
        raise ValueError(f"{flag} is less than one page of {size(page_bytes)}; raise it")
    free = free_memory(torch.device("cpu"))
    if pages * page_bytes > free:
        raise ValueError(
            f"{flag} takes {size(pages * page_bytes)} of the host's memory, {size(free)} are free; lower it"
        )
    return HostSettings(pages, args.hicache_write_policy)
