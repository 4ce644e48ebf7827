"""How long a model folder takes to load, against copying the same bytes from the page cache to the same device.

``python -m benchmarks.load_time --gib 4`` writes a folder of that size (Llama-3.1-8B's layers, bfloat16, sharded),
loads it and copies its files in turns, prints the medians and their ratio, and deletes the folder.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from backend.config import ServerArgs
from backend.loader.model_config import load_model_config
from backend.models.load import load_model
from backend.prompt.source import resolve_model
from backend.runner.device import choose_device

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
SHARD_LAYERS = 4
LAYER = {
    "input_layernorm": (4096,),
    "post_attention_layernorm": (4096,),
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
ENDS = {"model.embed_tokens": (32000, 4096), "model.norm": (4096,), "lm_head": (32000, 4096)}


def write_folder(folder: Path, gib: float) -> None:
    """A model of about ``gib`` GiB."""
    layer_bytes, ends = (sum(2 * torch.Size(shape).numel() for shape in part.values()) for part in (LAYER, ENDS))
    layers = max(1, round((gib * 2**30 - ends) / layer_bytes))
    (folder / "config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": layers}))
    shards = [ENDS]
    for first in range(0, layers, SHARD_LAYERS):
        numbers = range(first, min(first + SHARD_LAYERS, layers))
        shards.append({f"model.layers.{i}.{name}": shape for i in numbers for name, shape in LAYER.items()})
    places = {}
    for number, shapes in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        tensors = {f"{key}.weight": torch.full(shape, 0.01, dtype=torch.bfloat16) for key, shape in shapes.items()}
        save_file(tensors, folder / name)
        places.update(dict.fromkeys(tensors, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def load(folder: Path, device: torch.device) -> object:
    """As a server does it, up to what it does with the loaded weights."""
    source = resolve_model(str(folder))
    return load_model(ServerArgs(model_path=str(folder)), source, load_model_config(source), torch.bfloat16, device)


def copy(folder: Path, device: torch.device) -> object:
    """The bytes of the weights into new memory of the device, one after the other."""
    copied = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a dict, and not iterable itself)
                stored = file.get_tensor(name)
                copied.append(torch.empty(stored.shape, dtype=stored.dtype, device=device).copy_(stored))
    return copied


def timed(work: Callable[[Path, torch.device], object], folder: Path, device: torch.device) -> float:
    started = time.perf_counter()
    result = work(folder, device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    taken = time.perf_counter() - started
    del result
    gc.collect()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_folder(folder, args.gib)
        stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        copy(folder, device)  # into the page cache
        rounds = [(timed(load, folder, device), timed(copy, folder, device)) for _ in range(args.rounds)]
    loading, copying = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{stored / 2**30:.2f} GiB on {device}, {args.rounds} rounds in turns")
    print(f"load  {loading:6.2f} s  {stored / loading / 1e9:6.2f} GB/s")
    print(f"copy  {copying:6.2f} s  {stored / copying / 1e9:6.2f} GB/s")
    print(f"ratio {statistics.median(first / second for first, second in rounds):.2f}")


if __name__ == "__main__":
    main()
