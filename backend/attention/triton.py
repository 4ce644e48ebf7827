"""Attention with kernels of our own, in Triton: any NVIDIA GPU, and the CPU where Triton interprets them (tests).

Rows with one new token are split over their keys (``kernels/decode.py``), longer ones over their queries
(``kernels/prefill.py``). Both read what is in the pages, so the new keys and values are stored first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import triton
from numpy.typing import NDArray

from backend.attention.base import AttentionBackend, AttentionShape, KVTarget, PaddedSize, StepLayout
from backend.attention.kernels.chain import chained
from backend.attention.kernels.decode import decode_merge, decode_parts
from backend.attention.kernels.prefill import prefill_blocks
from backend.attention.kernels.product import precision
from backend.attention.kernels.store import store_tokens
from backend.attention.tiles import SMALLEST, choose_tiles, padded
from backend.attention.triton_step import Decode, Parts, Prefill, Room, Step, starts_of
from backend.attention.work import continued, decode_items, leading_ones, query_blocks, widened
from backend.cache.kv_pool import KVPool
from backend.transfer import FixedMemory, Uploader

PROGRAMS_PER_PROCESSOR = 4  # decode programs that are worth having on each multiprocessor
INTERPRETED_PROCESSORS = 2
MERGED_AT_ONCE = 8
MERGE_PROGRAMS = 1024  # more of them take longer to start than they work


class TritonAttention(AttentionBackend):
    captures = captures_prompts = True
    eight_bit_pools = True

    def __init__(
        self, pool: KVPool, shapes: Sequence[AttentionShape], *, key_scale: float = 1.0, value_scale: float = 1.0
    ) -> None:
        """``key_scale`` and ``value_scale`` turn the numbers of an 8-bit pool into the real ones."""
        self._pool, self._shapes = pool, tuple(shapes)
        self._device, self._dtype = pool.keys[0].device, pool.keys[0].dtype
        if self._device.type != "cuda" and not triton.knobs.runtime.interpret:
            raise ValueError("attention backend 'triton' needs an NVIDIA GPU; use --attention-backend torch_sdpa")
        self._precision = precision(self._device)
        self._scales = (key_scale, value_scale)
        self._tiles = {shape: choose_tiles(shape, self._dtype) for shape in self._shapes}
        self._extra = self._spare_parts()
        self._upload = Uploader(self._device)
        self._parts = self._new_parts(0)
        self._fixed: Room | None = None
        self._padded: Room | None = None

    def _spare_parts(self) -> int:
        """Parts beyond one for each row, so that few rows fill the GPU and a long one does not outlast the others."""
        processors = INTERPRETED_PROCESSORS
        if self._device.type == "cuda":
            processors = torch.cuda.get_device_properties(self._device).multi_processor_count
        per_part = min(shape.num_kv_heads * self._tiles[shape].head_blocks(shape) for shape in self._shapes)
        return -(-processors * PROGRAMS_PER_PROCESSOR // per_part)

    def _new_parts(self, count: int) -> Parts:
        heads = max(shape.num_heads for shape in self._shapes)
        sizes = max(shape.num_heads * (shape.value_dim or shape.head_dim) for shape in self._shapes)
        return Parts(
            torch.empty(count, sizes, dtype=torch.float32, device=self._device),
            torch.empty(count, heads, dtype=torch.float32, device=self._device),
        )

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        ones = torch.ones(max_rows, dtype=torch.int32)
        table = torch.zeros(max_rows, max_row_pages, dtype=torch.int32)
        lists = self._lists(StepLayout(ones, ones, table, ones.long()))
        room = memory.region(starts_of(lists)[-1], torch.int32)
        self._fixed = Room(room, self._new_parts(max_rows + self._extra))

    def reserve_padded(self, largest: PaddedSize, max_row_pages: int, memory: FixedMemory) -> None:
        one = torch.tensor([largest.tokens], dtype=torch.int32)
        table = torch.zeros(largest.rows + 1, max_row_pages, dtype=torch.int32)
        lists = self._padded_lists(StepLayout(one, one, table, torch.zeros(largest.tokens)), 0, largest)
        room = memory.region(starts_of(lists)[-1], torch.int32)
        self._padded = Room(room, self._new_parts(largest.rows + self._extra))

    def plan(self, layout: StepLayout) -> None:
        lists = self._lists(layout)
        singles = _singles(layout)
        if singles + self._extra > len(self._parts.out):
            self._parts = self._new_parts(singles + self._extra)
        self._step = self._as_step(layout, self._upload(*lists), self._parts)

    def plan_fixed(self, layout: StepLayout) -> None:
        if self._fixed is None:
            raise RuntimeError("reserve() comes before plan_fixed()")
        self._step = self._as_step(layout, self._fixed.hold(self._lists(layout)), self._fixed.parts)

    def plan_padded(self, layout: StepLayout, size: PaddedSize) -> None:
        if self._padded is None:
            raise RuntimeError("reserve_padded() comes before plan_padded()")
        singles = min(leading_ones(layout.query_lens.numpy()), size.rows) if size.singles else 0
        given = iter(self._padded.hold(self._padded_lists(layout, singles, size)))
        locations, width = next(given), next(given)
        decode = None
        if size.singles:
            cuts = {window: (next(given), next(given)) for window in self._windows()}
            decode = Decode(size.rows, cuts, self._padded.parts)
        rows = next(given)
        prefill = Prefill({shape: next(given) for shape in self._tiles}, rows, size.tokens)
        self._step = Step(locations, next(given), width, decode, prefill)

    def _padded_lists(self, layout: StepLayout, singles: int, size: PaddedSize) -> list[NDArray[np.int32]]:
        """What the kernels read in a captured step with prompts: as much of everything as there may be.

        The first ``singles`` rows have one token. Behind the row of padding is an empty one, for blocks left over.
        """
        query_lens, kv_lens = layout.query_lens.numpy(), layout.kv_lens.numpy()
        lists = [layout.locations.numpy().astype(np.int32), np.array([layout.page_table.shape[1]], np.int32)]
        if size.singles:
            tile = max(tiles.decode_n for tiles in self._tiles.values())
            for window in self._windows():
                items, firsts = decode_items(kv_lens[:singles], window, self._extra, tile)
                lists += [widened(items, size.rows + self._extra), continued(firsts, size.rows + 1)]
        starts = np.cumsum(query_lens, dtype=np.int32) - query_lens
        lists.append(widened(np.stack((starts, query_lens, kv_lens)), size.rows + 2))
        for shape in self._tiles:
            positions = self._block(shape, size.tokens)[1]
            blocks = query_blocks(query_lens[singles:], kv_lens[singles:], positions)
            blocks[0] += singles
            room = widened(blocks, size.tokens // positions + size.rows + 1)
            room[0, blocks.shape[1] :] = size.rows + 1
            lists.append(room)
        return [*lists, layout.page_table.numpy()]

    def _lists(self, layout: StepLayout) -> list[NDArray[np.int32]]:
        """What the kernels read, in the order of :meth:`_as_step`.

        The page table is last: for steps of single rows, all other lengths follow from the number of rows.
        """
        query_lens, kv_lens, singles = layout.query_lens.numpy(), layout.kv_lens.numpy(), _singles(layout)
        lists = [layout.locations.numpy().astype(np.int32), np.array([layout.page_table.shape[1]], np.int32)]
        if singles:
            tile = max(tiles.decode_n for tiles in self._tiles.values())
            for window in self._windows():
                lists += decode_items(kv_lens[:singles], window, self._extra, tile)
        if singles < len(query_lens):
            lists.append(np.stack((np.cumsum(query_lens, dtype=np.int32) - query_lens, query_lens, kv_lens)))
            for shape in self._tiles:
                positions = self._block(shape, int(query_lens.max()))[1]
                blocks = query_blocks(query_lens[singles:], kv_lens[singles:], positions)
                blocks[0] += singles
                lists.append(blocks)
        return [*lists, layout.page_table.numpy()]

    def _as_step(self, layout: StepLayout, lists: Sequence[torch.Tensor], parts: Parts) -> Step:
        given = iter(lists[:-1])
        locations, width = next(given), next(given)
        singles = _singles(layout)
        decode = prefill = None
        if singles:
            decode = Decode(singles, {window: (next(given), next(given)) for window in self._windows()}, parts)
        if singles < len(layout.query_lens):
            rows = next(given)
            prefill = Prefill({shape: next(given) for shape in self._tiles}, rows, int(layout.query_lens.max()))
        return Step(locations, lists[-1], width, decode, prefill)

    def _windows(self) -> list[int | None]:
        return list(dict.fromkeys(shape.window for shape in self._tiles))

    def _block(self, shape: AttentionShape, longest: int) -> tuple[int, int, int]:
        """Heads of a group and positions in one block of queries, and the size of its tile."""
        group = shape.num_heads // shape.num_kv_heads
        size = min(padded(group * longest), self._tiles[shape].prefill_m)
        if SMALLEST < size < 64:
            size = 64 if self._tiles[shape].prefill_m >= 64 else SMALLEST
        heads = min(group, size)
        return heads, size // heads, size

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self._store(self._pool.keys[layer], key, self._scales[0])
        if self._shapes[layer].value_dim is None:
            self._store(self._pool.values[layer], value, self._scales[1])
        return self.attend_stored(layer, query, key, value, sinks)

    def target(self, layer: int) -> KVTarget:
        return KVTarget(self._pool.keys[layer], self._pool.values[layer], self._step.locations, *self._scales)

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        shape, step = self._shapes[layer], self._step
        out = query.new_empty(len(query), shape.num_heads * (shape.value_dim or shape.head_dim))
        if step.decode is not None:
            self._attend_singles(layer, step.decode, query, out, sinks)
        if step.prefill is not None:
            self._attend_blocks(layer, step.prefill, query, out, sinks)
        return out

    def _store(self, pool: torch.Tensor, source: torch.Tensor, scale: float) -> None:
        tokens, kv_heads, size = source.shape
        store_tokens[(tokens,)](
            source, pool, self._step.locations, source.stride(0), source.stride(1),
            scale, torch.finfo(pool.dtype).max,
            KV_HEADS=kv_heads, SIZE=size, BLOCK=triton.next_power_of_2(kv_heads * size),
        )  # fmt: skip

    def _attend_singles(
        self, layer: int, decode: Decode, query: torch.Tensor, out: torch.Tensor, sinks: torch.Tensor | None
    ) -> None:
        shape, tiles = self._shapes[layer], self._tiles[self._shapes[layer]]
        items, first_items = decode.cuts[shape.window]
        parts = decode.parts
        decode_parts[(items.shape[1], shape.num_kv_heads * tiles.head_blocks(shape))](
            query, self._pool.keys[layer], self._pool.values[layer], out, parts.out, parts.log,
            query if sinks is None else sinks, items, first_items, self._step.table, self._step.width,
            items.shape[1], query.stride(0), query.stride(1), *self._factors(shape),
            **self._constants(shape, query, sinks),
            BLOCK_H=tiles.decode_h, BLOCK_N=tiles.decode_n, num_warps=tiles.decode_warps,
            num_stages=tiles.decode_stages, **chained(self._device),
        )  # fmt: skip
        at_once = merged_heads(decode.rows, shape.num_heads)
        decode_merge[(decode.rows, -(-shape.num_heads // at_once))](
            out, parts.out, parts.log, first_items,
            HEADS=shape.num_heads, DV=shape.value_dim or shape.head_dim, BLOCK_D=tiles.front,
            BLOCK_PARTS=MERGED_AT_ONCE, HEADS_AT_ONCE=at_once, num_warps=1, **chained(self._device),
        )  # fmt: skip

    def _attend_blocks(
        self, layer: int, prefill: Prefill, query: torch.Tensor, out: torch.Tensor, sinks: torch.Tensor | None
    ) -> None:
        shape, tiles = self._shapes[layer], self._tiles[self._shapes[layer]]
        heads, positions, size = self._block(shape, prefill.longest)
        group = shape.num_heads // shape.num_kv_heads
        blocks = prefill.blocks[shape]
        prefill_blocks[(shape.num_kv_heads * -(-group // heads), blocks.shape[1])](
            query, self._pool.keys[layer], self._pool.values[layer], out, query if sinks is None else sinks,
            blocks, prefill.rows, self._step.table, self._step.width, blocks.shape[1], prefill.rows.shape[1],
            query.stride(0), query.stride(1), *self._factors(shape),
            **self._constants(shape, query, sinks),
            WINDOW=shape.window or 0, HEADS=heads, POSITIONS=positions, BLOCK_M=size, BLOCK_N=tiles.prefill_n,
            num_warps=tiles.prefill_warps if size > SMALLEST else 4, num_stages=tiles.prefill_stages,
        )  # fmt: skip

    def _factors(self, shape: AttentionShape) -> tuple[float, float]:
        """On the scores, in base 2, and on the values."""
        key_scale, value_scale = self._scales
        return shape.scale * key_scale * math.log2(math.e), key_scale if shape.value_dim else value_scale

    def _constants(self, shape: AttentionShape, query: torch.Tensor, sinks: torch.Tensor | None) -> dict[str, object]:
        """What both kernels are compiled for."""
        tiles = self._tiles[shape]
        return {
            "GROUP": shape.num_heads // shape.num_kv_heads,
            "KV_HEADS": shape.num_kv_heads,
            "D": shape.head_dim,
            "DV": shape.value_dim or shape.head_dim,
            "PAGE": self._pool.page_size,
            "LATENT": shape.value_dim is not None,
            "SOFT_CAP": shape.soft_cap or 0.0,
            "HAS_SINKS": sinks is not None,
            "PRECISION": self._precision,
            "BLOCK_D": tiles.front,
            "BLOCK_REST": tiles.rest,
        }


def merged_heads(rows: int, heads: int) -> int:
    """Heads for one program that merges parts: of many rows only few have more than one part."""
    return min(triton.next_power_of_2(-(-rows * heads // MERGE_PROGRAMS)), heads)


def _singles(layout: StepLayout) -> int:
    """Rows with one new token; they come first."""
    return int(torch.count_nonzero(layout.query_lens == 1))
