"""A model of ours driven step by step over a paged cache, with the pages of every row out of order."""

import random

import torch

from backend.attention import attention_class
from backend.attention.base import StepLayout
from backend.cache import KVPool
from backend.config import ServerArgs
from backend.core import build_model
from backend.loader.model_config import load_model_config
from backend.prompt.source import resolve_model

PAGE = 4
PAGES_PER_ROW = 32


class Paged:
    """Computes logits of any mix of rows; what was computed of a row before lies in its pages."""

    def __init__(self, folder: str, rows: int = 6, attention: str = "torch_sdpa") -> None:
        source = resolve_model(folder)
        config = load_model_config(source)
        device = torch.device("cpu")
        self.model = build_model(ServerArgs(model_path=folder), source, config, torch.float32, device)
        pool = KVPool(
            num_layers=config.num_layers,
            num_pages=rows * PAGES_PER_ROW,
            page_size=PAGE,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            dtype=torch.float32,
            device=device,
            latent=config.latent,
        )
        pages = random.Random(0).sample(range(1, pool.num_pages + 1), pool.num_pages)
        self.pages = torch.tensor(pages, dtype=torch.int32).view(rows, PAGES_PER_ROW)
        self.attention = attention_class(attention)(pool, self.model.attention_shapes())
        self.computed = [0] * rows

    @torch.inference_mode()
    def step(self, new: dict[int, list[int]]) -> dict[int, torch.Tensor]:
        """Compute ``new`` tokens of each row; returns float32[tokens, vocab] by row."""
        order = sorted(new, key=lambda row: (len(new[row]) > 1, row))
        starts, lens = [self.computed[row] for row in order], [len(new[row]) for row in order]
        positions = [torch.arange(start, start + n) for start, n in zip(starts, lens, strict=True)]
        places = [self.pages[row, at // PAGE] * PAGE + at % PAGE for row, at in zip(order, positions, strict=True)]
        self.attention.plan(
            StepLayout(
                query_lens=torch.tensor(lens, dtype=torch.int32),
                kv_lens=torch.tensor([a + b for a, b in zip(starts, lens, strict=True)], dtype=torch.int32),
                page_table=self.pages[order],
                locations=torch.cat(places).long(),
            )
        )
        ids = torch.tensor([token for row in order for token in new[row]])
        logits = self.model.logits(self.model(ids, torch.cat(positions), self.attention))
        for row, n in zip(order, lens, strict=True):
            self.computed[row] += n
        return dict(zip(order, logits.split(lens), strict=True))
