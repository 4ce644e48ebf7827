"""The interface of attention: plan once a step, attend once a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from backend.attention.sharing import Sharing
from backend.cache.kv_pool import KVPool
from backend.transfer import FixedMemory


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """One layer's attention."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None = None  # tokens that each one sees, itself included; None: all before it
    soft_cap: float | None = None  # scores become ``cap * tanh(score / cap)``
    value_dim: int | None = None  # of the values, where they are the front part of the keys (latent attention)
    has_sinks: bool = False  # one learned score a head takes part in the softmax, and brings no value


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where one step's tokens stand. All tensors live on the CPU.

    Tokens of a row are adjacent, rows in the order of the batch; rows with one token come first.
    """

    query_lens: torch.Tensor  # int32[R] tokens of each row in this step
    kv_lens: torch.Tensor  # int32[R] tokens of each row after it
    page_table: torch.Tensor  # int32[R, max pages of these rows]
    locations: torch.Tensor  # int64[T] where the step's keys and values go: page * page_size + offset
    window: StepLayout | None = None  # of the layers with a window, where those have pages of their own: without what
    # lies before the pages that are still held, so ``kv_lens`` are shorter

    def rows(self, at: torch.Tensor | slice) -> StepLayout:
        """Some rows of one token each, in the order of ``at``; or all in front of, or from, the first longer one."""
        window = None if self.window is None else self.window.rows(at)
        return StepLayout(self.query_lens[at], self.kv_lens[at], self.page_table[at], self.locations[at], window)

    def followed_by(self, more: StepLayout) -> StepLayout:
        """Rows of one token each, and ``more`` of them behind, whose pages are no more than these have."""
        table = self.page_table.new_zeros(len(self.page_table) + len(more.page_table), self.page_table.shape[1])
        table[: len(self.page_table)] = self.page_table
        table[len(self.page_table) :, : more.page_table.shape[1]] = more.page_table
        return StepLayout(
            query_lens=torch.cat((self.query_lens, more.query_lens)),
            kv_lens=torch.cat((self.kv_lens, more.kv_lens)),
            page_table=table,
            locations=torch.cat((self.locations, more.locations)),
            window=None if self.window is None else self.window.followed_by(more.window or more),
        )


class PaddedSize(NamedTuple):
    """How large a captured step with prompts is."""

    tokens: int
    rows: int  # that it may have, beside those of padding
    singles: bool  # whether there may be rows of one token


class KVTarget(NamedTuple):
    """Where one layer's keys and values of a step go; the stored number times its scale is the real one."""

    keys: torch.Tensor  # [pages, page_size, kv_heads, head_dim]
    values: torch.Tensor
    locations: torch.Tensor  # int[T]: page * page_size + offset
    key_scale: float = 1.0
    value_scale: float = 1.0


class AttentionBackend(ABC):
    """Writes new keys and values to the pool and attends to everything before them (causal)."""

    captures: bool = False  # whether :meth:`plan_fixed` is there, so that CUDA graphs can be captured
    captures_prompts: bool = False  # whether :meth:`plan_padded` is
    shares: bool = False  # whether :meth:`plan_shared` is

    @abstractmethod
    def __init__(self, pool: KVPool, shapes: Sequence[AttentionShape]) -> None:
        """``shapes`` has one entry for each layer. ``ValueError`` for one that the backend cannot compute."""

    eight_bit_pools: bool = False  # whether keys and values may be stored in 8 bits
    float32_pools: bool = True  # or in full precision

    @classmethod
    def computes(cls, shapes: Sequence[AttentionShape]) -> bool:
        """Whether ``auto`` may choose the backend for layers of these shapes."""
        return True

    @abstractmethod
    def plan(self, layout: StepLayout) -> None:
        """Prepare for one step; every ``attend`` until the next plan uses it. Nothing waits for the device."""

    def reserve(self, max_rows: int, max_row_pages: int, memory: FixedMemory) -> None:
        """Before the first :meth:`plan_fixed`: the most rows of one, and the most pages of a row.

        What a plan writes to regions of ``memory`` is there when the caller has sent it.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be captured")

    def plan_fixed(self, layout: StepLayout) -> None:
        """Like ``plan``, for rows of one token each, with all that ``attend`` reads in buffers that never move.

        A CUDA graph captured from ``attend`` after it computes, when replayed after a later ``plan_fixed`` of as many
        rows, that later step. Rows of padding have one token, on page 0.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot be captured")

    def reserve_padded(self, largest: PaddedSize, max_row_pages: int, memory: FixedMemory) -> None:
        """Before the first :meth:`plan_padded`; see :meth:`reserve`."""
        raise NotImplementedError(f"{type(self).__name__} does not capture prompts")

    def plan_padded(self, layout: StepLayout, size: PaddedSize) -> None:
        """Like ``plan_fixed``, for rows of any number of tokens, of which there are ``size.tokens`` in all.

        The last row may be one of padding, on page 0.
        """
        raise NotImplementedError(f"{type(self).__name__} does not capture prompts")

    def find_sharing(self, layout: StepLayout) -> Sharing | None:
        """Groups of a decode step's rows whose shared prefixes :meth:`plan_shared` should take; None: none."""
        return None

    def plan_shared(self, layout: StepLayout, sharing: Sharing) -> None:
        """Like ``plan_fixed``, for rows in the order of ``sharing``; captured steps of both kinds are different."""
        raise NotImplementedError(f"{type(self).__name__} does not share prefixes")

    @abstractmethod
    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Store ``key``/``value`` ``[T, kv_heads, head_dim]``, attend with ``query`` ``[T, heads, head_dim]``.

        ``sinks`` is ``[heads]`` where the layer's shape has them. Values are ``[T, kv_heads, value_dim]`` where it has
        that. Returns ``[T, heads * head_dim]``, or ``[T, heads * value_dim]``.
        """

    def target(self, layer: int) -> KVTarget | None:
        """For layers that store keys and values themselves and call :meth:`attend_stored`; None: they must not."""
        return None

    def attend_stored(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``attend``, with ``key`` and ``value`` at their :meth:`target` already."""
        raise NotImplementedError(f"{type(self).__name__} stores keys and values itself")
