"""``--kv-cache-dtype``: a whole engine on keys and values of 8 bits, and what refuses them."""

import pytest

from backend import Engine
from backend.runner.device import KV_DTYPES
from tests.backend.tiny_models import write_model

PROMPT = [5, 9, 3, 7, 30, 8]
GREEDY = {"temperature": 0, "max_new_tokens": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model("qwen3", tmp_path_factory.mktemp("qwen3"))


def engine(model, **args):
    settings = {"dtype": "float32", "skip_tokenizer_init": True, "cpu_threads": 1, "max_total_tokens": 64}
    return Engine(model, check_invariants=True, **settings, **args)


@pytest.mark.parametrize("kind", KV_DTYPES)
def test_an_engine_answers_from_eight_bits(model, kind):
    with engine(model, kv_cache_dtype=kind, attention_backend="triton") as running:
        (answer,) = running.generate(input_ids=[PROMPT], sampling_params=GREEDY, progress=False)
    assert len(answer["output_ids"]) == GREEDY["max_new_tokens"]


@pytest.mark.parametrize(
    "args", [{"attention_backend": "torch_native"}, {"enable_deterministic_inference": True}], ids=str
)
def test_other_attention_refuses(model, args):
    with pytest.raises(ValueError, match=r"float8_e4m3fn need the kernels of --attention-backend triton"):
        engine(model, kv_cache_dtype="fp8_e4m3", device="cpu", **args)
