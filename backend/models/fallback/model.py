"""A model of ``transformers`` behind the interface of ours."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast

from backend.attention.base import AttentionBackend, AttentionShape
from backend.loader.model_config import ModelConfig
from backend.models.base import CausalLM, WeightError
from backend.models.fallback.interface import NAME, LayerAttention, PagedLayers, Unsupported, attending, register
from backend.models.fallback.probe import Probe, check_layers, check_modules, check_positions


@dataclass
class HiddenOnly(MoeModelOutputWithPast):
    """What a body returns, with all that heads look for."""

    cross_attentions: tuple[torch.Tensor, ...] | None = None


class GivenHidden(nn.Module):
    """In the place of a model's body: gives back the hidden states that it gets, so that the head alone is left."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> HiddenOnly:
        return HiddenOnly(last_hidden_state=inputs_embeds)


class Parts(nn.Module):
    """A model in two: ``body`` gives hidden states; ``head`` is the model with its body replaced, which scales and caps
    logits as the whole does.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        model.eval().requires_grad_(False)
        body = model.get_decoder()
        name = next((name for name, module in model.named_modules() if module is body), "")
        if not name or "position_ids" not in inspect.signature(body.forward).parameters:
            raise Unsupported("takes no positions from outside (an encoder-decoder or a recurrent model)")
        model.set_submodule(name, GivenHidden())
        self.body, self.head = body, model

    def hidden(self, ids: torch.Tensor, positions: torch.Tensor, attend: LayerAttention) -> torch.Tensor:
        """``[T, hidden]`` of the tokens ``ids`` (int64[T]) at ``positions``."""
        with attending(attend):
            out = self.body(input_ids=ids[None], position_ids=positions[None], use_cache=False, return_dict=True)
        hidden: torch.Tensor = out.last_hidden_state
        return hidden[0]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(inputs_embeds=hidden[None], use_cache=False).logits
        return logits[0]


def probe_layers(config: PretrainedConfig) -> tuple[AttentionShape, ...]:
    """What each layer asks of attention, by a pass that allocates nothing. ``Unsupported`` says why it cannot be."""
    with torch.device("meta"), torch.inference_mode():
        model = _from_config(config, torch.bfloat16)
        check_modules(model)
        parts, probe = Parts(model), Probe()
        token = torch.zeros(1, dtype=torch.int64)
        hidden = parts.hidden(token, token, probe)
        check_layers(probe.shapes, config)
        logits = parts.logits(hidden)
    if logits.shape != (1, config.vocab_size):
        raise Unsupported(f"gives {logits.shape[-1]} logits for a vocabulary of {config.vocab_size}")
    size = max(shape.head_dim for shape in probe.shapes.values())
    return tuple(replace(probe.shapes[layer], head_dim=size) for layer in range(len(probe.shapes)))


def _from_config(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    register()
    own = copy.deepcopy(config)  # transformers writes to it
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(own, attn_implementation=NAME, dtype=dtype)
    except KeyError as error:
        if error.args != (NAME,):
            raise
        raise Unsupported("has attention of its own, not that of transformers' interface") from error
    return model


class TransformersLM(CausalLM):
    """Serves the model that ``config.reference`` describes; its weights are random unless :meth:`load` made it."""

    def __init__(self, config: ModelConfig, model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.reference is None:
            raise ValueError(f"{config.architecture} was not read for transformers")
        try:
            check_positions(config.reference.config, config.max_position_embeddings)
        except Unsupported as error:
            raise ValueError(f"{config.architecture} {error}") from None
        self.shapes = config.reference.shapes
        self.parts = Parts(model or _from_config(config.reference.config, torch.get_default_dtype()))

    @classmethod
    def load(cls, config: ModelConfig, folder: Path, dtype: torch.dtype, device: torch.device) -> Self:
        """The model of ``folder``, its weights read by ``transformers``. Raises WeightError, Unsupported."""
        if config.reference is None:
            raise ValueError(f"{config.architecture} was not read for transformers")
        register()
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=copy.deepcopy(config.reference.config),
            dtype=dtype,
            attn_implementation=NAME,
            output_loading_info=True,
        )
        model, found = loaded
        missing = sorted(found["missing_keys"])
        if missing:
            raise WeightError(f"the checkpoint lacks {len(missing)} tensors, among them {missing[0]}")
        return cls(config, model.to(device))

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        attention: AttentionBackend,
        kept: torch.Tensor | None = None,
    ) -> torch.Tensor:
        hidden = self.parts.hidden(ids, positions, PagedLayers(attention, self.shapes))
        return hidden if kept is None else hidden[kept]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.parts.logits(hidden)

    @property
    def captures(self) -> bool:
        """Not: what a model does between its layers is not known."""
        return False

    @property
    def couples_rows(self) -> bool:
        """Taken for granted, for the same reason."""
        return True

    def attention_shapes(self) -> list[AttentionShape]:
        return list(self.shapes)
