"""How one request wants its tokens chosen: the fields, defaults and ranges of SGLang's ``sampling_params``."""

from __future__ import annotations

import msgspec

GREEDY_TEMPERATURE = 1e-6
MAX_STOP_STRINGS = 32
# The scheduler keeps these in float32 and int32. Positive numbers stay far from float32's ends, so that a product or a
# quotient with them is neither 0 nor infinite.
TINY, HUGE = 1e-30, 1e30
INT32_MAX = 2**31 - 1
MAX_BIAS = 1000  # more forces or forbids a token no better
_WANTED = {
    "max_new_tokens": "at least 0",
    "min_new_tokens": "between 0 and max_new_tokens",
    "temperature": f"between 0 and {HUGE:g}",
    "top_k": f"-1 (all) or between 1 and {INT32_MAX}",
    "top_p": f"in (0, 1] and at least {TINY:g}",
    "min_p": "in [0, 1]",
    "frequency_penalty": "in [-2, 2]",
    "presence_penalty": "in [-2, 2]",
    "repetition_penalty": f"in (0, 2] and at least {TINY:g}",
    "n": "between 1 and 128",
    "stop": f"at most {MAX_STOP_STRINGS} non-empty strings",
    "stop_regex": f"at most {MAX_STOP_STRINGS} non-empty expressions",
}


class SamplingError(ValueError):
    """A parameter out of range; ``field`` is its name."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class SamplingParams(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Sampling parameters of one request. ``validate`` raises :class:`SamplingError` (a ``ValueError``)."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    temperature: float = 1.0  # below 1e-6 means greedy
    top_k: int = -1  # -1: all
    top_p: float = 1.0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: list[str] = []
    stop_regex: list[str] = []  # what each may be: backend.frontend.stop_regex
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    sampling_seed: int | None = None
    n: int = 1
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    no_stop_trim: bool = False
    logit_bias: dict[int, float] = {}  # token id -> added to its logit

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_TEMPERATURE or self.top_k == 1

    def validate(self) -> None:
        """Raise :class:`SamplingError`, with the value, for the first field that is out of range."""
        in_range = (
            ("max_new_tokens", self.max_new_tokens >= 0),
            ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens),
            ("temperature", 0 <= self.temperature <= HUGE),
            ("top_k", self.top_k == -1 or 1 <= self.top_k <= INT32_MAX),
            ("top_p", TINY <= self.top_p <= 1),
            ("min_p", 0 <= self.min_p <= 1),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2),
            ("presence_penalty", -2 <= self.presence_penalty <= 2),
            ("repetition_penalty", TINY <= self.repetition_penalty <= 2),
            ("n", 1 <= self.n <= 128),
            ("stop", len(self.stop) <= MAX_STOP_STRINGS and all(self.stop)),
            ("stop_regex", len(self.stop_regex) <= MAX_STOP_STRINGS and all(self.stop_regex)),
        )
        for name, ok in in_range:
            if not ok:
                raise SamplingError(name, f"must be {_WANTED[name]}, got {getattr(self, name)!r}")
        seed = self.sampling_seed
        if seed is not None and not -(2**63) <= seed < 2**64:
            raise SamplingError("sampling_seed", f"must be an integer of 64 bits, got {seed}")
        self._validate_tokens()

    def _validate_tokens(self) -> None:
        for token in self.stop_token_ids:
            if not 0 <= token <= INT32_MAX:
                raise SamplingError("stop_token_ids", f"must be token ids between 0 and {INT32_MAX}, got {token}")
        for token, bias in self.logit_bias.items():
            if not abs(bias) <= MAX_BIAS:
                problem = f"must be between -{MAX_BIAS} and {MAX_BIAS}, got {bias!r} for token {token}"
                raise SamplingError("logit_bias", problem)
