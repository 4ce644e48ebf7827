"""Classifiers and embedding models of every family against ``transformers``, in chunks and beside each other."""

import json

import numpy as np
import pytest
import tokenizers
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
    LlamaForCausalLM,
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
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)

from backend.config import ServerArgs
from backend.frontend.errors import RequestError
from backend.frontend.intake import Intake, Limits, RequestOptions
from backend.loader.model_config import load_model_config
from backend.models.build import footprint
from backend.models.tasks import Task
from backend.prompt.errors import ModelError
from backend.prompt.source import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.models.families import COMMON, WINDOW
from tests.backend.pooled import pool
from tests.backend.tiny_models import VOCAB, load_reference, save_tiny

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
@torch.no_grad()
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
@torch.no_grad()
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


def write_tokenizer(folder):
    """One token a word; "yes" and "no" among them."""
    words = {word: i for i, word in enumerate([*(f"w{i}" for i in range(40)), "yes", "no", "maybe"])}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0")).save(str(folder / "tokenizer.json"))
    return words


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tokens", [["no", "yes"], ["no", "yes", "maybe"]], ids=len)
@torch.no_grad()
def test_a_reranker_that_answers_yes_or_no(tmp_path, tied, tokens):
    """Its language head's rows become the classifier's."""
    make = lambda: Qwen3ForCausalLM(Qwen3Config(**COMMON, head_dim=16, tie_word_embeddings=tied))  # noqa: E731
    folder, words = save_tiny("qwen3", make, tmp_path), write_tokenizer(tmp_path)
    model = load_reference(folder)
    logits = [model(torch.tensor([prompt])).logits[0, -1, [words[each] for each in tokens]] for prompt in prompts()]
    expected = [(each[1:] - each[:1] if len(tokens) == 2 else each).numpy() for each in logits]
    override = {"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": tokens}
    settings = {"json_model_override_args": json.dumps(override)}
    close(pool(folder, prompts(), "classify", **settings).vectors, expected)
    classes = load_model_config(resolve_model(folder), ServerArgs(**settings)).classes
    if len(tokens) == 2:
        yes = [float(each.softmax(0)[1]) for each in logits]
        np.testing.assert_allclose([classes.scores(each)[0] for each in expected], yes, atol=1e-6)
    else:
        assert classes.labels == tuple(tokens)


def test_a_token_that_does_not_exist_is_named(tmp_path):
    folder = save_tiny("qwen3", CLASSIFIERS["qwen3-reranker"], tmp_path)
    write_tokenizer(tmp_path)
    override = json.dumps({"classifier_from_token": ["no", "perhaps"]})
    with pytest.raises(ModelError, match="classifier_from_token names what is no token of the model: 'perhaps'"):
        pool(folder, [[3]], "classify", json_model_override_args=override)


@torch.no_grad()
def test_an_embedding_model_stored_without_its_prefix_and_head(tmp_path):
    """As Qwen3-Embedding: called a causal model, with the names of one without a head."""
    folder = save_tiny("qwen3", EMBEDDERS["qwen3"], tmp_path)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    expected = [model(torch.tensor([prompt])).last_hidden_state[0, -1].numpy() for prompt in prompts()]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["Qwen3ForCausalLM"]}))
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Pooling", "path": ""}]))
    assert load_model_config(resolve_model(folder)).task is Task.EMBED
    close(pool(folder, prompts(), "last").vectors, expected)


@torch.no_grad()
def test_any_model_can_be_served_for_embeddings_alone(tmp_path):
    folder = save_tiny("llama", lambda: LlamaForCausalLM(LlamaConfig(**COMMON)), tmp_path)
    config = load_model_config(resolve_model(folder), ServerArgs(is_embedding=True))
    without = footprint(config, torch.float32).parameters
    assert footprint(load_model_config(resolve_model(folder)), torch.float32).parameters == without + VOCAB * 48
    hidden = [load_reference(folder).model(torch.tensor([prompt])).last_hidden_state[0, -1] for prompt in prompts()]
    close(pool(folder, prompts(), "last", is_embedding=True).vectors, [each.numpy() for each in hidden])


@pytest.mark.parametrize(("key", "value"), [("use_bidirectional_attention", True), ("is_causal", False)])
def test_models_that_look_ahead_are_refused(tmp_path, key, value):
    folder = save_tiny("gemma3", EMBEDDERS["gemma3"], tmp_path)
    with pytest.raises(ModelError, match=f"{key} is {value}: tokens see what follows them"):
        load_model_config(resolve_model(folder), ServerArgs(json_model_override_args=json.dumps({key: value})))


@pytest.mark.parametrize(
    ("task", "pooling", "words"),
    [
        ("embed", "", r"writes no text: it is for embeddings \(/v1/embeddings\)"),
        ("classify", "", r"writes no text: it is for classification \(/v1/classify\)"),
        ("embed", "classify", "has no labels"),
        ("generate", "classify", "has no labels"),
    ],
)
def test_requests_that_the_model_has_no_head_for_are_refused(task, pooling, words):
    intake = Intake(None, None, Limits(64, VOCAB, task=task))
    option = RequestOptions(sampling=SamplingParams(max_new_tokens=1), pooling=pooling)
    with pytest.raises(RequestError, match=words):
        intake.accept([3], option, 0, 0.0)
    intake.accept([3], RequestOptions(sampling=SamplingParams(max_new_tokens=0), pooling="mean"), 0, 0.0)
