"""How far our logits are from those of ``transformers``, in each way that a scheduler may cut the same tokens."""

import random
from collections.abc import Sequence

import torch

from tests.backend.models.paged import Paged
from tests.backend.tiny_models import VOCAB, load_reference

CHUNK = 7


Rows = list[list[int]]


def sequences(lengths: Sequence[int]) -> Rows:
    r = random.Random(0)
    return [[r.randrange(3, VOCAB) for _ in range(length)] for length in lengths]


def prefill(model: Paged, rows: Rows) -> list[torch.Tensor]:
    """Each row alone and at once."""
    return [model.step({row: ids})[row] for row, ids in enumerate(rows)]


def chunked(model: Paged, rows: Rows) -> list[torch.Tensor]:
    """Every row in chunks, all rows together, until the longest is done."""
    parts: list[list[torch.Tensor]] = [[] for _ in rows]
    for start in range(0, max(map(len, rows)), CHUNK):
        step = {row: ids[start : start + CHUNK] for row, ids in enumerate(rows) if start < len(ids)}
        for row, logits in model.step(step).items():
            parts[row].append(logits)
    return [torch.cat(part) for part in parts]


def decode(model: Paged, rows: Rows) -> list[torch.Tensor]:
    """A short prompt, then one token at a time, rows of different lengths side by side."""
    parts = [[model.step({row: ids[:3]})[row]] for row, ids in enumerate(rows)]
    for at in range(3, max(map(len, rows))):
        for row, logits in model.step({row: [ids[at]] for row, ids in enumerate(rows) if at < len(ids)}).items():
            parts[row].append(logits)
    return [torch.cat(part) for part in parts]


def mixed(model: Paged, rows: Rows) -> list[torch.Tensor]:
    """Steps of decoding rows, rows in the middle of their prompt and fresh ones, drawn at random."""
    r = random.Random(1)
    parts: list[list[torch.Tensor]] = [[] for _ in rows]
    at = [0] * len(rows)
    while any(done < len(ids) for done, ids in zip(at, rows, strict=True)):
        waiting = [row for row, ids in enumerate(rows) if at[row] < len(ids)]
        chosen = r.sample(waiting, r.randint(1, len(waiting)))
        step = {row: rows[row][at[row] :][: r.choice((1, 1, 5, 16, 40))] for row in chosen}
        for row, logits in model.step(step).items():
            parts[row].append(logits)
            at[row] += len(step[row])
    return [torch.cat(part) for part in parts]


WAYS = {"prefill": prefill, "chunked prefill": chunked, "decode": decode, "mixed batches": mixed}


@torch.inference_mode()
def reference(folder: str, rows: Rows) -> list[torch.Tensor]:
    model = load_reference(folder)
    return [model(torch.tensor([ids])).logits[0] for ids in rows]


def worst_difference(folder: str, way: str, rows: Rows, attention: str = "torch_sdpa") -> float:
    """The largest absolute difference of any logit of any token."""
    pairs = zip(WAYS[way](Paged(folder, attention=attention), rows), reference(folder, rows), strict=True)
    return max(float((mine - theirs).abs().max()) for mine, theirs in pairs)
