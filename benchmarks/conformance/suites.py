"""Which clients there are, where each of them runs, and for how long at most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.conformance.environments import Environment, Here

CLIENTS = Path(__file__).parent / "clients"
# What SGLang imports on the way to its client, besides torch and transformers, which are shared.
SGLANG = Environment(
    "sglang-client-0.5.23",
    packages=(
        "datasets", "einops", "fastapi", "ipython", "loguru", "openai", "orjson", "partial-json-parser", "psutil",
        "pybase64", "requests", "sentencepiece", "setproctitle", "tabulate",
    ),
    alone=("sglang==0.5.23", "compressed-tensors", "apache-tvm-ffi"),
    ours=True,
)  # fmt: skip
VLLM = Environment(
    "vllm-client-0.33.0",
    packages=(
        "cachetools", "cbor2", "cloudpickle", "einops", "fastapi", "openai", "partial-json-parser", "psutil",
        "py-cpuinfo", "pybase64", "requests",
    ),
    alone=("vllm==0.33.0", "xgrammar", "apache-tvm-ffi", "openai-harmony"),
    ours=True,
)  # fmt: skip
LM_EVAL = Environment("lm-eval-0.4.13", packages=("lm_eval[api]==0.4.13", "transformers>=5.17,<6"))
LANGCHAIN = Environment("langchain-openai-1.7", packages=("langchain-openai>=1.7,<1.8",))


@dataclass(frozen=True, slots=True)
class Suite:
    """``routed``: it is also run through the router, once; it steers no backend and is short.

    ``words``: what its script is told besides; suites of one script are one row of the page.
    """

    client: str
    name: str
    script: str
    environment: Environment | Here
    seconds: float
    routed: bool = True
    words: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return CLIENTS / f"{self.script}.py"


SUITES = (
    Suite("curl", "lines of SGLang's guides", "curl_guide", Here(), 120),
    Suite("openai SDK", "contract of every route", "openai_sdk", Here(), 200),
    Suite("Anthropic SDK", "`/v1/messages`", "anthropic_sdk", Here(), 60),
    Suite("langchain-openai", "answers, streams, tools, structured output", "langchain_chat", LANGCHAIN, 120),
    Suite("SGLang `bench_serving`", "`random-ids` over four APIs", "sglang_bench", SGLANG, 180),
    Suite("`vllm bench serve`", "random prompts over two APIs", "vllm_bench", VLLM, 120),
    Suite("lm-eval `local-completions`", "slices of HellaSwag and GSM8K", "lm_eval_slices", LM_EVAL, 240, routed=False),
    *(
        Suite("SGLang `sglang.test.kits`", "its own mixins", "sglang_kits", SGLANG, 420, routed=False, words=words)
        for words in (("--part", "1/2"), ("--part", "2/2"))
    ),
)
