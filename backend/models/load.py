"""A model with its weights: ours filled from a checkpoint, or one that ``transformers`` runs."""

from __future__ import annotations

import logging

import torch

from backend.config import ServerArgs
from backend.layers.packed import pack_linears, packs
from backend.loader.model_config import ModelConfig
from backend.loader.token_classes import class_tokens, score_from_head
from backend.loader.weights import dummy_weights, iterate_weights
from backend.models.base import CausalLM
from backend.models.build import empty_model
from backend.prompt.source import ModelSource

logger = logging.getLogger(__name__)


def load_model(
    args: ServerArgs, source: ModelSource, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> CausalLM:
    """The model of ``source`` on ``device`` in ``dtype``. Raises ``ValueError`` (one line) for a bad checkpoint."""
    if config.reference is not None:
        return _load_reference(args, source, config, dtype, device)
    model = empty_model(config, dtype, device)
    if args.load_format == "dummy":
        dummy_weights(model.named_parameters(), args.random_seed or 0)
    else:
        weights = iterate_weights(source, config, args.load_format)
        tokens = class_tokens(config, source if args.tokenizer_path is None else args.tokenizer_path)
        if tokens is not None:
            weights = score_from_head(weights, tokens, tied=config.tie_word_embeddings)
        model.load_weights(weights)
    if packs(device, dtype):
        pack_linears(model)
    return model


def _load_reference(
    args: ServerArgs, source: ModelSource, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> CausalLM:
    from backend.models.fallback.model import TransformersLM  # heavy, and rarely needed

    logger.info("%s is run by transformers, over paged attention (--model-impl transformers)", config.architecture)
    if args.load_format != "dummy":
        return TransformersLM.load(config, source.path, dtype, device)
    model = empty_model(config, dtype, device)
    dummy_weights(model.named_parameters(), args.random_seed or 0)
    return model
