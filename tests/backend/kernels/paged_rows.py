"""Rows of random keys and values in scattered pages of a pool that is NaN everywhere else."""

import itertools
import random

import torch

from backend.attention.base import AttentionShape, StepLayout
from backend.cache.kv_pool import KVPool
from tests.backend.kernels.reference import attention


class PagedRows:
    """One step of one layer: rows of which ``query_lens`` tokens are new, of ``kv_lens`` in all."""

    def __init__(self, shape: AttentionShape, query_lens, kv_lens, *, page, dtype, pool_dtype=None, device, seed=0):
        self.shape, self.device = shape, device
        self.generator = torch.Generator().manual_seed(seed)
        self.query_lens, self.kv_lens = list(query_lens), list(kv_lens)
        wide = [-(-length // page) for length in kv_lens]
        self.pool = KVPool(
            num_layers=1,
            num_pages=sum(wide) + 3,
            page_size=page,
            kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            dtype=pool_dtype or dtype,
            device=device,
            latent=shape.value_dim,
        )
        self.pool.keys[0].fill_(float("nan"))
        self.pool.values[0].fill_(float("nan"))
        pages = random.Random(seed).sample(range(1, self.pool.num_pages + 1), sum(wide))
        table = torch.zeros(len(wide), max(wide), dtype=torch.int32)
        for row, count in enumerate(wide):
            table[row, :count] = torch.tensor([pages.pop() for _ in range(count)])
        every = [table[row, at // page].long() * page + at % page for row, at in enumerate(map(torch.arange, kv_lens))]
        new = [at[-count:] for at, count in zip(every, query_lens, strict=True)]
        self.layout = StepLayout(
            query_lens=torch.tensor(self.query_lens, dtype=torch.int32),
            kv_lens=torch.tensor(self.kv_lens, dtype=torch.int32),
            page_table=table,
            locations=torch.cat(new),
        )
        tokens, heads, kv_heads, size = sum(query_lens), shape.num_heads, shape.num_kv_heads, shape.head_dim
        # As layers give them: queries, keys and values side by side.
        whole = self.normal(tokens, heads + 2 * kv_heads, size).to(dtype).to(device)
        self.query, self.key, self.value = whole.split((heads, kv_heads, kv_heads), dim=1)
        if shape.value_dim is not None:
            self.value = self.key[..., : shape.value_dim]
        self.sinks = self.normal(heads).to(dtype).to(device) if shape.has_sinks else None
        for at, count in zip(every, query_lens, strict=True):
            self._fill(at[: len(at) - count])
        self.every = every

    def _pools(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.pool.keys[0], self.pool.values[0]

    def normal(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self.generator)

    def _fill(self, slots: torch.Tensor) -> None:
        """Give earlier tokens their keys and values."""
        slots = slots.to(self.device)
        for pool in self._pools()[: 1 if self.pool.latent else 2]:
            numbers = self.normal(len(slots), *pool.shape[2:])
            pool.flatten(0, 1)[slots] = numbers.to(self.device, pool.dtype)

    def part(self, chosen: list[int], padding: int = 0) -> StepLayout:
        """The decode step of the ``chosen`` rows, and of rows of padding."""
        whole, more = self.layout, torch.zeros(padding, dtype=torch.int32)
        table = torch.cat((whole.page_table[chosen], more[:, None].expand(-1, whole.page_table.shape[1])))
        lens = [torch.cat((x[chosen], more + 1)) for x in (whole.query_lens, whole.kv_lens)]
        return StepLayout(*lens, table, torch.cat((whole.locations[chosen], more.long())))

    def expected(
        self, chosen: list[int] | None = None, *, key_scale: float = 1.0, value_scale: float = 1.0
    ) -> torch.Tensor:
        """float64 ``[T, heads * value size]`` of the rows, from what the pool holds after the step."""
        ends = list(itertools.accumulate(self.query_lens))
        parts = []
        for row in range(len(ends)) if chosen is None else chosen:
            keys, values = (pool.cpu().flatten(0, 1)[self.every[row]].double() for pool in self._pools())
            query = self.query[ends[row] - self.query_lens[row] : ends[row]]
            parts.append(attention(query, keys * key_scale, values * value_scale, self.shape, self.sinks))
        return torch.cat(parts)

    def stored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values at the new tokens' places."""
        where = self.layout.locations
        keys, values = (pool.cpu().flatten(0, 1)[where] for pool in self._pools())
        return keys, values
