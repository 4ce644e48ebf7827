"""Decode steps through ``torch.compile``: what stands between matrix products and attention becomes fused kernels.

The whole model is traced into one graph in which attention is an operation that the compiler does not look into: it
reads plans that are made anew for every step. Few batch sizes are compiled, one graph serves a range of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from backend.attention.base import AttentionBackend, AttentionShape, StepLayout
from backend.layers import Experts
from backend.models.base import CausalLM
from backend.runner.decode_rows import padding

NAMESPACE = "warmlane"
SIGNATURE = "(int layer, Tensor query, Tensor key, Tensor value, Tensor? sinks) -> Tensor"
BACKEND = "inductor"
FLAG = "--enable-torch-compile"


class OpaqueAttention(AttentionBackend):
    """``inner`` as one operation of torch. Its plans are made by whoever has it."""

    def __init__(self, inner: AttentionBackend, shapes: Sequence[AttentionShape]) -> None:
        sizes = [shape.num_heads * (shape.value_dim or shape.head_dim) for shape in shapes]

        def shape_only(
            layer: int,
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            sinks: torch.Tensor | None,
        ) -> torch.Tensor:
            return query.new_empty(query.shape[0], sizes[layer])

        self._library = torch.library.Library(NAMESPACE, "FRAGMENT")  # the operation lives as long as this
        name = next(f"attend{n}" for n in itertools.count() if not hasattr(getattr(torch.ops, NAMESPACE), f"attend{n}"))
        self._library.define(name + SIGNATURE)
        self._library.impl(name, inner.attend, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", shape_only, lib=self._library)
        self._attend = getattr(getattr(torch.ops, NAMESPACE), name)

    def plan(self, layout: StepLayout) -> None:
        raise NotImplementedError("the backend within is planned")

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        out: torch.Tensor = self._attend(layer, query, key, value, sinks)
        return out


class CompiledForward:
    """Hidden states of decode steps of at most ``largest`` rows from compiled code, and from the model beyond."""

    def __init__(
        self,
        model: CausalLM,
        attention: AttentionBackend,
        largest: int,
        *,
        backend: str | Callable[..., object] = BACKEND,
    ) -> None:
        """``ValueError`` for a model that is not compiled."""
        if (reason := _refusal(model)) is not None:
            raise ValueError(f"{FLAG} does not do {reason}; start without it")
        self._model, self._attention, self._largest = model, attention, largest
        opaque = OpaqueAttention(attention, model.attention_shapes())
        self._compiled = torch.compile(
            lambda ids, positions: model(ids, positions, opaque),
            backend=backend,
            fullgraph=True,
            dynamic=True,
        )

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """int64[R] and int64[R], one token a row; the backend was planned."""
        hidden: torch.Tensor = (
            self._compiled(ids, positions)
            if len(ids) <= self._largest
            else self._model(ids, positions, self._attention)
        )
        return hidden

    @torch.inference_mode()
    def warm_up(self, device: torch.device) -> None:
        """Compile for one row and for several; page 0 is written. ``ValueError`` when the compiler fails."""
        for rows in range(1, min(self._largest, 2) + 1):
            nothing = torch.zeros(rows, dtype=torch.int64, device=device)
            self._attention.plan(padding(rows, 0).layout)
            try:
                self(nothing, nothing)
            except RuntimeError as error:
                told = " ".join(str(error).split("\n")[:2])  # who failed, and why
                raise ValueError(f"{FLAG}: torch.compile failed ({told}); start without it") from error


def _refusal(model: CausalLM) -> str | None:
    if model.config.reference is not None:
        return "models that transformers runs"
    if any(isinstance(module, Experts) for module in model.modules()):
        return "mixtures of experts"
    if any(parameter.is_mkldnn for parameter in model.parameters()):
        return "packed weights on the CPU (use --dtype float32)"
    return None
