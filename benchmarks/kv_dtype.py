"""What keys and values in 8 bits do to a model's predictions: KL divergence of the next token's distribution.

    python -m benchmarks.kv_dtype [--model-path DIR] [--tokens 512] [--json FILE]

A text (this project's README) runs through the model in chunks, once with keys and values as computed and once for each
8-bit type; the tokens of the second half are compared. Without a GPU torch rounds the keys and values as the kernels of
a GPU do (Triton's interpreter would cut digits off), and computes with them in float32.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from backend.attention import attention_class
from backend.attention.base import AttentionBackend, StepLayout
from backend.attention.torch_sdpa import TorchSDPA
from backend.cache import KVPool
from backend.config import ServerArgs
from backend.core import build_model
from backend.loader.model_config import ModelConfig, load_model_config
from backend.models import CausalLM
from backend.prompt import load_tokenizer, resolve_model
from backend.runner.device import KV_DTYPES, choose_device

PAGE = 16
CHUNK = 64
TEXT = Path(__file__).parents[1] / "README.md"


class Rounded(TorchSDPA):
    """Keys and values go to the pool as they would come back from one in ``kind``."""

    kind: torch.dtype = torch.float32

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        sinks: torch.Tensor | None = None,
    ) -> torch.Tensor:
        limit = torch.finfo(self.kind).max
        key, value = (each.clamp(-limit, limit).to(self.kind).to(each.dtype) for each in (key, value))
        return super().attend(layer, query, key, value, sinks)


@torch.inference_mode()
def log_probabilities(
    model: CausalLM, config: ModelConfig, ids: torch.Tensor, kv_dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """float32 ``[T, vocab]``: of the token behind each, its past read from keys and values in ``kv_dtype``."""
    pages = -(-len(ids) // PAGE)
    pool = KVPool(
        num_layers=config.num_layers,
        num_pages=pages,
        page_size=PAGE,
        kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        dtype=kv_dtype if device.type == "cuda" else torch.float32,
        device=device,
        latent=config.latent,
    )
    attention = _attention(pool, model, kv_dtype)
    found = []
    for start in range(0, len(ids), CHUNK):
        positions = torch.arange(start, min(start + CHUNK, len(ids)))
        attention.plan(
            StepLayout(
                query_lens=torch.tensor([len(positions)], dtype=torch.int32),
                kv_lens=torch.tensor([start + len(positions)], dtype=torch.int32),
                page_table=torch.arange(1, pages + 1, dtype=torch.int32)[None],
                locations=positions + PAGE,
            )
        )
        hidden = model(ids[positions].to(device), positions.to(device), attention)
        found.append(model.logits(hidden).float().log_softmax(-1).cpu())
    return torch.cat(found)


def _attention(pool: KVPool, model: CausalLM, kv_dtype: torch.dtype) -> AttentionBackend:
    if pool.keys[0].device.type == "cuda":
        return attention_class("triton")(pool, model.attention_shapes())
    attention = Rounded(pool, model.attention_shapes())
    attention.kind = kv_dtype
    return attention


def compared(exact: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    """KL divergences in nats, and how often both hold the same token the likeliest."""
    divergence = (exact.exp() * (exact - other)).sum(-1)
    return {
        "kl_mean": float(divergence.mean()),
        "kl_p99": float(divergence.quantile(0.99)),
        "same_top": float((exact.argmax(-1) == other.argmax(-1)).float().mean()),
    }


def measure(model_path: str | None, tokens: int) -> dict[str, Any]:
    source, device = resolve_model(model_path), choose_device("auto")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    args = ServerArgs(model_path=model_path)
    config = load_model_config(source, args)
    model = build_model(args, source, config, dtype, device)
    ids = torch.tensor(load_tokenizer(source).encode(TEXT.read_text(encoding="utf-8"))[:tokens])
    judged = slice(len(ids) // 2, None)
    exact = log_probabilities(model, config, ids, dtype, device)[judged]
    entropy = float(-(exact.exp() * exact).sum(-1).mean())
    found = {
        name: compared(exact, log_probabilities(model, config, ids, kind, device)[judged])
        for name, kind in KV_DTYPES.items()
    }
    return {"model": Path(source.path).name, "tokens": len(exact), "entropy": entropy, "kv_dtypes": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    found = {"date": datetime.now(UTC).date().isoformat()} | measure(arguments.model_path, arguments.tokens)
    print(f"{found['model']}, {found['tokens']} tokens, entropy {found['entropy']:.2f} nats")
    for name, values in found["kv_dtypes"].items():
        kl = f"KL {values['kl_mean']:.5f} nats, 99 % below {values['kl_p99']:.4f}"
        print(f"{name}: {kl}, same token {values['same_top']:.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
