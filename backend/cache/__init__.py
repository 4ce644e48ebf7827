"""Where keys and values live: the paged pool, its page allocator and the radix tree that shares pages between
requests.
"""

from backend.cache.kv_pool import KVPool
from backend.cache.pages import PADDING_PAGE, PageAllocator
from backend.cache.radix import Match, RadixCache

__all__ = ["PADDING_PAGE", "KVPool", "Match", "PageAllocator", "RadixCache"]
