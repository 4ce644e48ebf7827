"""Sampling parameters as clients write them: OpenAI's names beside a prompt, SGLang's inside ``sampling_params``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StrictInt

from backend.api.errors import SchemaError
from backend.api.schema import Body
from backend.sampling_params import SamplingParams


def _as_list(value: Any) -> Any:
    """One stop string or id may stand for a list of one."""
    return [value] if isinstance(value, str | int) and not isinstance(value, bool) else value


Stops = Annotated[list[str], BeforeValidator(_as_list)]
TokenIds = Annotated[list[StrictInt], BeforeValidator(_as_list)]
Count = Annotated[int, Field(ge=1, le=128)]
OPENAI_NAMES = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens", "sampling_seed": "seed"}
UNBOUNDED = 1 << 30  # tokens; always made to fit into the context


class SharedFields(Body):
    """Parameters that have the same name and meaning everywhere."""

    n: Count = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: Stops = Field(default_factory=list)  # a default is copied by pydantic, which is slower
    stop_regex: Stops = Field(default_factory=list)
    stop_token_ids: TokenIds = Field(default_factory=list)
    ignore_eos: bool = False
    no_stop_trim: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logit_bias: dict[str, float] = Field(default_factory=dict)  # by token id, which JSON writes as text

    def shared(self) -> dict[str, Any]:
        """The keyword arguments of SamplingParams that these fields are."""
        fields = {name: getattr(self, name) for name in SharedFields.model_fields}
        return {**fields, "logit_bias": {_token_id(token): bias for token, bias in self.logit_bias.items()}}


def _token_id(text: str) -> int:
    if not text.isdecimal():
        raise SchemaError(f"logit_bias: {text!r} is no token id", param="logit_bias")
    return int(text)


class NativeSampling(SharedFields):
    """``sampling_params`` of ``/generate``."""

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    sampling_seed: int | None = None

    def to_sampling(self, default_max_tokens: int = 128) -> SamplingParams:
        return SamplingParams(
            **self.shared(),
            max_new_tokens=default_max_tokens if self.max_new_tokens is None else self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            sampling_seed=self.sampling_seed,
        )


class OpenAISampling(SharedFields):
    """The sampling parameters of the OpenAI routes, with SGLang's additions."""

    min_tokens: Annotated[int, Field(ge=0)] = 0
    seed: int | None = None

    def to_sampling(self, max_tokens: int) -> SamplingParams:
        return SamplingParams(
            **self.shared(), max_new_tokens=max_tokens, min_new_tokens=self.min_tokens, sampling_seed=self.seed
        )
