"""Real servers of models that write nothing: a classifier, and an embedding model of sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from tests.backend.models.test_heads import CLASSIFIERS, EMBEDDERS
from tests.backend.tiny_models import save_tiny
from tests.e2e.processes import Processes, free_port

START_SECONDS = 110
PROMPT = [5, 9, 33, 70, 12, 8, 41]
Serve = Callable[[str], httpx.Client]


@pytest.fixture(scope="module")
def serve(processes: Processes) -> Iterator[Serve]:
    clients: list[httpx.Client] = []

    def start(folder: str) -> httpx.Client:
        words = ["--model-path", folder, "--skip-tokenizer-init", "--dtype", "float32", "--cpu-threads", "1"]
        started = processes.python(
            Path(folder).name, "backend.launch_server", *words, "--max-total-tokens", "2048", port=free_port()
        )
        started.wait_ready("/health", START_SECONDS)
        clients.append(httpx.Client(base_url=started.url, timeout=60, trust_env=False))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def test_a_classifier(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = save_tiny("llama", CLASSIFIERS["llama"], tmp_path_factory.mktemp("classifier"))
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0].softmax(0).numpy()
    http = serve(folder)
    answer = http.post("/v1/classify", json={"input": PROMPT}).json()
    np.testing.assert_allclose(answer["data"][0]["probs"], expected, atol=1e-4)
    refused = http.post("/generate", json={"input_ids": PROMPT})
    assert (refused.status_code, "writes no text" in refused.text) == (400, True)
    assert http.get("/health_generate").status_code == 200
    assert http.get("/model_info").json()["is_generation"] is False


def test_an_embedding_model(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its modules say: the mean, and not normalised."""
    made = tmp_path_factory.mktemp("embedder")
    folder = save_tiny("qwen3", EMBEDDERS["qwen3"], made)
    kind = "sentence_transformers.models"
    modules = [{"type": f"{kind}.Transformer", "path": ""}, {"type": f"{kind}.Pooling", "path": "1_Pooling"}]
    (made / "modules.json").write_text(json.dumps(modules))
    (made / "1_Pooling").mkdir()
    (made / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    with torch.no_grad():
        expected = AutoModel.from_pretrained(folder, dtype=torch.float32)(torch.tensor([PROMPT])).last_hidden_state
    answer = serve(folder).post("/v1/embeddings", json={"input": PROMPT}).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], expected[0].mean(0).numpy(), atol=1e-4)
