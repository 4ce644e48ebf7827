"""Classifiers and embedding models of every family against ``transformers``, in chunks and beside each other."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma2ForSequenceClassification,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    Gemma3TextModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MistralForSequenceClassification,
    MistralModel,
    MixtralConfig,
    MixtralForSequenceClassification,
    Phi3Config,
    Phi3ForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)

from backend.loader.model_config import load_model_config
from backend.prompt.source import resolve_model
from tests.backend.models.families import COMMON, WINDOW
from tests.backend.pooled import pool
from tests.backend.tiny_models import VOCAB, save_tiny

LENGTHS = (1, 3, 21, 38, 38, 55)
COMMON = {**COMMON, "pad_token_id": 0}
GEMMA = {**COMMON, "head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 24}
CLASSIFIERS = {
    "llama": lambda: LlamaForSequenceClassification(LlamaConfig(**COMMON, num_labels=3)),
    "llama-reward": lambda: LlamaForSequenceClassification(LlamaConfig(**COMMON, num_labels=1)),
    "mistral": lambda: MistralForSequenceClassification(MistralConfig(**COMMON, sliding_window=WINDOW)),
    "mixtral": lambda: MixtralForSequenceClassification(MixtralConfig(**COMMON, num_local_experts=5, num_labels=3)),
    "phi3": lambda: Phi3ForSequenceClassification(Phi3Config(**COMMON, num_labels=4)),
    "qwen2": lambda: Qwen2ForSequenceClassification(Qwen2Config(**COMMON, num_labels=5)),
    "qwen3-reranker": lambda: Qwen3ForSequenceClassification(Qwen3Config(**COMMON, head_dim=16, num_labels=1)),
    "gemma2": lambda: Gemma2ForSequenceClassification(Gemma2Config(**GEMMA, num_labels=3)),
    "gemma3": lambda: Gemma3TextForSequenceClassification(Gemma3TextConfig(**GEMMA, num_labels=3)),
}
EMBEDDERS = {
    "llama": lambda: LlamaModel(LlamaConfig(**COMMON)),
    "mistral": lambda: MistralModel(MistralConfig(**COMMON, sliding_window=WINDOW)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**COMMON)),
    "qwen3": lambda: Qwen3Model(Qwen3Config(**COMMON, head_dim=16)),
    "gemma3": lambda: Gemma3TextModel(Gemma3TextConfig(**GEMMA)),
}


def prompts():
    random = np.random.default_rng(1)
    found = [random.integers(3, VOCAB, length).tolist() for length in LENGTHS]
    found[4][:20] = found[3][:20]
    return [*found, found[3]]


def close(found, expected):
    assert set(found) == set(range(len(expected)))
    for uid, vector in found.items():
        np.testing.assert_allclose(vector, expected[uid], atol=1e-4)


@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("family", CLASSIFIERS)
@torch.inference_mode()
def test_labels_numbers_equal_those_of_transformers(family, chunk, tmp_path):
    folder = save_tiny(family, CLASSIFIERS[family], tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [model(torch.tensor([prompt])).logits[0].numpy() for prompt in prompts()]
    found = pool(folder, prompts(), "classify", chunked_prefill_size=chunk)
    close(found.vectors, expected)
    assert max(found.cached.values()) > 0
    assert len(load_model_config(resolve_model(folder)).classes.labels) == len(expected[0])


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", EMBEDDERS)
@torch.inference_mode()
def test_embeddings_of_models_without_a_head(family, pooling, tmp_path):
    folder = save_tiny(family, EMBEDDERS[family], tmp_path)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    hidden = [model(torch.tensor([prompt])).last_hidden_state[0] for prompt in prompts()]
    expected = [each.mean(0) if pooling == "mean" else each[-1] for each in hidden]
    close(pool(folder, prompts(), pooling, chunked_prefill_size=16).vectors, [each.numpy() for each in expected])


def test_a_classifier_embeds_too(tmp_path):
    folder = save_tiny("llama", CLASSIFIERS["llama"], tmp_path)
    with torch.inference_mode():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
        expected = [model.model(torch.tensor([prompt])).last_hidden_state[0, -1].numpy() for prompt in prompts()]
    close(pool(folder, prompts(), "last").vectors, expected)


def test_labels_and_activation_come_from_the_configuration(tmp_path):
    folder = save_tiny("llama", CLASSIFIERS["llama"], tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    assert load_model_config(resolve_model(folder)).classes.activation == "softmax"
    config |= {"id2label": {"1": "bad", "0": "good", "2": "ugly"}, "problem_type": "multi_label_classification"}
    path.write_text(json.dumps(config))
    classes = load_model_config(resolve_model(folder)).classes
    assert classes.labels == ("good", "bad", "ugly")
    np.testing.assert_allclose(classes.scores(np.array([0, 100, -200], np.float32)), [0.5, 1, 0], atol=1e-6)
