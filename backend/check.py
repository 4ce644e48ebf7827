"""``launch_server --check MODEL``: what a model needs and what fits here, before anything is loaded or allocated."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from backend.config import ServerArgs
from backend.core import kv_demand, refuse_quantised
from backend.loader.model_config import ModelConfig, load_model_config
from backend.models.build import Footprint, footprint, size
from backend.prompt.source import resolve_model
from backend.runner.device import choose_device, choose_dtype, free_memory, kv_budget
from backend.runner.kv_sizes import Demand, KVBytes, KVSizes, largest, pages_apart, sizes_for

MOST_OF_MEMORY = 0.9  # the largest --mem-fraction-static that is advised


@dataclass(frozen=True, slots=True)
class Check:
    """``lines`` for the user, and whether the model can be served here as asked."""

    lines: list[str]
    fits: bool


def check(args: ServerArgs) -> Check:
    """Judge the model that ``args.check`` or ``args.model_path`` names. Raises ``ValueError`` (one line)."""
    path = args.check or args.model_path
    source = resolve_model(path, revision=args.revision, download_dir=args.download_dir, only="prompt")
    config = load_model_config(source, args).limited(args.context_length)
    refuse_quantised(config)
    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, config.dtype, device)
    needs, each, free = footprint(config, dtype), KVBytes.of(config, dtype), free_memory(device)
    context = config.max_position_embeddings
    lines = [
        f"{source.name}: {config.architecture}, {config.num_layers} layers, {context:,} positions",
        f"  parameters    {needs.parameters:,}",
        f"  weights       {size(needs.weights)} in {_name(dtype)}{_other_dtype(needs, dtype)}",
        _cache_line(each, context),
        f"  this machine  {device.type}, {size(free)} free",
    ]
    if needs.weights > free:
        missing = size(needs.weights - free)
        return Check(
            [*lines, f"  fits          no: the weights lack {missing}{_advice(needs, dtype, free)}"], fits=False
        )
    return _judge_cache(args, config, needs, each, device, lines)


def report(args: ServerArgs, prog: str) -> int:
    """Print what the model needs. Exit status 0 when it can be served here, 1 when it cannot or is not known."""
    try:
        found = check(args)
    except ValueError as error:
        sys.stderr.write(f"{prog}: error: {error}\n")
        return 1
    sys.stdout.write("\n".join(found.lines) + "\n")
    return 0 if found.fits else 1


def _kv_cache(args: ServerArgs, config: ModelConfig, each: KVBytes, demand: Demand, budget: int) -> KVSizes:
    """The pools that would be allocated, with ``budget`` bytes for them where the user gave no number of tokens."""
    asked = pages_apart(args, config), args.swa_full_tokens_ratio, demand
    if args.max_total_tokens:
        return sizes_for(args.max_total_tokens, *asked)
    return largest(max(budget, 0), each, *asked)


def _judge_cache(
    args: ServerArgs, config: ModelConfig, needs: Footprint, each: KVBytes, device: torch.device, lines: list[str]
) -> Check:
    """What the KV cache holds beside the weights."""
    demand = kv_demand(args, config, device)
    context, page = demand.context, demand.page
    sizes = _kv_cache(args, config, each, demand, kv_budget(args, device, reserved=needs.weights))
    tokens, window = sizes.tokens, sizes.window
    held = f"{size(sizes.bytes(each, page))} of KV cache hold {tokens:,} tokens"
    if window is not None:
        held += f" ({window.num_pages * page:,} where a window of {window.window:,} is seen)"
    if tokens >= context:
        together = min(tokens // context, demand.rows if window is None else min(demand.rows, window.long_rows(page)))
        return Check([*lines, f"  fits          yes: {held}, {together} requests of {context:,} at once"], fits=True)
    room = max(int((free_memory(device) - needs.weights) * MOST_OF_MEMORY), 0)
    most = _kv_cache(args, config, each, demand, room).tokens
    advice = (
        f"--mem-fraction-static {MOST_OF_MEMORY} would hold {most:,}" if most > tokens else "lower --context-length"
    )
    verdict = f"with less context: {held}; {advice}" if tokens else f"no: nothing is left for the KV cache; {advice}"
    return Check([*lines, f"  fits          {verdict}"], fits=tokens > 0)


def _cache_line(each: KVBytes, context: int) -> str:
    apart = f", {size(each.window)} of it in layers with a window" if each.window else ""
    return f"  KV cache      {size(each.both)} a token, {size(each.both * context)} for {context:,}{apart}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _other_dtype(needs: Footprint, dtype: torch.dtype) -> str:
    return f" (--dtype bfloat16: {size(needs.weights // 2)})" if dtype is torch.float32 else ""


def _advice(needs: Footprint, dtype: torch.dtype, free: int) -> str:
    halved = dtype is torch.float32 and needs.weights // 2 <= free
    return "; --dtype bfloat16 would fit" if halved else "; free memory or choose a smaller model"
