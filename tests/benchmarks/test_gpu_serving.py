"""The offline workloads over HTTP, with a tiny model on the CPU."""

import pytest

from backend.prompt import load_tokenizer
from benchmarks import gpu_serving
from tests.backend.tiny_models import VOCAB

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "eos_token_id": 2,
}


def test_the_vocabulary_has_a_text_for_every_id(tmp_path):
    gpu_serving.write_folder(tmp_path, CONFIG)
    tokenizer = load_tokenizer(str(tmp_path))
    texts = {tokenizer.id_to_token(i) for i in range(VOCAB)}
    assert len(texts) == VOCAB
    assert None not in texts


@pytest.mark.timeout(120)
def test_all_tokens_come_back_over_http(tmp_path):
    gpu_serving.write_folder(tmp_path, CONFIG)
    work = [([5 + i, 6, 7, 8], 3 + i) for i in range(5)]
    flags = ["--device", "cpu", "--cpu-threads", "1", "--max-total-tokens", "256"]
    found = gpu_serving.serve(tmp_path, work, flags, count=2)
    assert (found["requests"], found["output_tokens"]) == (5, sum(tokens for _, tokens in work))
    assert set(found["ms"]) == {"TTFT", "TPOT", "ITL", "E2E"}
    assert found["output_tok_s"] == pytest.approx(found["output_tokens"] / found["seconds"], rel=0.05)
