"""What layers do between matrix products: with torch anywhere, with Triton kernels on an NVIDIA GPU.

A layer asks once, when it is made, for the operations of the device that its weights are on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ParamSpec, Protocol

import torch
import torch.nn.functional as F

from backend.layers.activation import activation

if TYPE_CHECKING:
    from backend.attention.base import KVTarget
    from backend.layers.experts import ExpertWeights
    from backend.layers.norm import RMSNorm
    from backend.layers.rotary import RotaryTables
    from backend.layers.routing import Routing

Gate = Callable[[torch.Tensor], torch.Tensor]
Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class Norm(Protocol):
    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: bool, delta: torch.Tensor | None
    ) -> torch.Tensor: ...


class RotateAndStore(Protocol):
    def __call__(
        self,
        projected: torch.Tensor,
        rotary: RotaryTables,
        target: KVTarget,
        norms: tuple[RMSNorm, RMSNorm] | None,
    ) -> torch.Tensor: ...


class ExpertsProduct(Protocol):
    def __call__(
        self, x: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor, of: ExpertWeights
    ) -> torch.Tensor: ...


class Choose(Protocol):
    def __call__(
        self, logits: torch.Tensor, rule: Routing, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


class LatentKey(Protocol):
    def __call__(
        self,
        turned: torch.Tensor,
        projected: torch.Tensor,
        norm: RMSNorm,
        rotary: RotaryTables,
        query: torch.Tensor,
        *,
        interleaved: bool,
    ) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class LayerOps:
    """``rms_norm(x, weight, eps)`` normalises the last dimension in float32 inside. With ``offset`` the weight is what
    is added to one; with ``delta`` it adds that to ``x``, in place, before.

    ``gate(act)`` gives the function from ``[..., 2 I]`` to ``act(gate) * up`` ``[..., I]`` of the two halves;
    ``ValueError`` for an activation that is not known.

    ``linear(x, weight, bias)`` is ``x W^T + b``, computed in the weight's dtype.

    ``rotate_and_store(projected, rotary, target, norms)`` takes queries, keys and values ``[T, heads + 2 kv_heads,
    head_dim]``, stores the finished keys and the values, and returns queries and keys ``[T, heads + kv_heads,
    head_dim]``, normalised and turned. None: there is no such kernel here.

    ``experts(x, weights, ids, of)`` is the weighted sum of each token's experts ``[T, hidden]``; ``weights`` and
    ``ids`` are ``[T, top_k]``. None: the same.

    ``choose(logits, rule, bias)`` is ``rule.choose(logits, bias)``; the experts' numbers may be int32.

    ``latent_key(turned, projected, norm, rotary, query, interleaved)`` turns the queries' parts ``turned`` ``[T, heads,
    rotated]`` into the end of ``query`` ``[T, heads, latent + rotated]``. It gives the key ``[T, 1, latent + rotated]``
    of ``projected`` ``[T, latent + rotated]``: the latent vector normalised, the rest turned. With ``interleaved``
    rotary pairs come as neighbours; they leave as halves, queries and keys alike.
    """

    rms_norm: Norm
    gate: Callable[[str], Gate]
    linear: Product
    choose: Choose
    latent_key: LatentKey
    rotate_and_store: RotateAndStore | None = None
    experts: ExpertsProduct | None = None


def layer_ops(device: torch.device) -> LayerOps:
    """The fastest operations for tensors on ``device``."""
    return triton_ops() if device.type == "cuda" and importlib.util.find_spec("triton") else TORCH_OPS


@cache
def triton_ops() -> LayerOps:
    """Our kernels; imports triton."""
    from backend.layers.kernels.experts import experts
    from backend.layers.kernels.few_rows import linear
    from backend.layers.kernels.gate import gate
    from backend.layers.kernels.latent import latent_key
    from backend.layers.kernels.norm import rms_norm
    from backend.layers.kernels.rotary import rotate_and_store
    from backend.layers.kernels.routing import choose

    def gated(act: str) -> Gate:
        return _traceable(gate(act), _gate(act))

    return LayerOps(_traceable(rms_norm, _rms_norm), gated, linear, choose, latent_key, rotate_and_store, experts)


P = ParamSpec("P")


def _traceable(kernel: Callable[P, torch.Tensor], plain: Callable[P, torch.Tensor]) -> Callable[P, torch.Tensor]:
    """``kernel``, but ``plain`` to ``torch.compile``, which makes kernels of it and of what is beside it."""

    def either(*args: P.args, **more: P.kwargs) -> torch.Tensor:
        return plain(*args, **more) if torch.compiler.is_compiling() else kernel(*args, **more)

    return either


def _rms_norm(
    x: torch.Tensor, weight: torch.Tensor, eps: float, *, offset: bool = False, delta: torch.Tensor | None = None
) -> torch.Tensor:
    if delta is not None:
        x += delta
    if offset:
        return F.rms_norm(x.float(), weight.shape, 1.0 + weight.float(), eps).to(x.dtype)
    return F.rms_norm(x, weight.shape, weight, eps)


def _gate(act: str) -> Gate:
    function = activation(act)

    def gated(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        return function(gate) * up

    return gated


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.linear(x.to(weight.dtype), weight, bias)


def _choose(logits: torch.Tensor, rule: Routing, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    return rule.choose(logits, bias)


def _latent_key(
    turned: torch.Tensor,
    projected: torch.Tensor,
    norm: RMSNorm,
    rotary: RotaryTables,
    query: torch.Tensor,
    *,
    interleaved: bool,
) -> torch.Tensor:
    def halves(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2) if interleaved else x

    rotated = turned.shape[-1]
    latent, turned_key = projected[:, None].split((projected.shape[1] - rotated, rotated), dim=-1)
    query[..., -rotated:] = rotary.rotate(halves(turned))
    return torch.cat((norm(latent), rotary.rotate(halves(turned_key))), dim=-1)


TORCH_OPS = LayerOps(_rms_norm, _gate, _linear, _choose, _latent_key)
