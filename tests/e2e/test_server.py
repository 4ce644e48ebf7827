"""The real backend on the default model: ``launch_server`` as users start it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.processes import Process, Processes, free_port

START_SECONDS = 110
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def server(processes: Processes) -> Iterator[Process]:
    started = processes.python(
        "server", "backend.launch_server", "--cpu-threads", "1", "--max-total-tokens", "8192", port=free_port()
    )
    started.wait_ready("/health", START_SECONDS)
    yield started
    started.stop()


@pytest.fixture
def http(server: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def sdk(server: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chat_knows_the_capital_of_france(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_says_the_same(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24)
    stream = sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=24, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 3


def test_a_repeated_prompt_is_cached(http: httpx.Client) -> None:
    body = {"text": "Once upon a time there was a little fox who lived in the forest and" * 3}
    body |= {"sampling_params": {"temperature": 0, "max_new_tokens": 4}}
    first = http.post("/generate", json=body)
    second = http.post("/generate", json=body)
    assert int(second.headers["x-warmlane-cached-tokens"]) > 0
    assert second.json()["meta_info"]["cached_tokens"] > first.json()["meta_info"]["cached_tokens"]
    assert second.json()["text"] == first.json()["text"]


def test_completions_continue_the_text(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=2)
    assert answer.choices[0].text.startswith(" Paris")


def test_stop_string_and_seed(http: httpx.Client) -> None:
    sampling = {"temperature": 0.8, "sampling_seed": 3, "max_new_tokens": 20, "stop": ["."]}
    body = {"text": "The sky is", "sampling_params": sampling}
    first, second = (http.post("/generate", json=body).json() for _ in range(2))
    assert first["text"] == second["text"]
    assert "." not in first["text"]


def test_leaving_and_asking_for_nothing_leave_nothing(http: httpx.Client) -> None:
    long = {"text": "Tell me", "sampling_params": {"max_new_tokens": 2000, "ignore_eos": True}, "stream": True}
    with http.stream("POST", "/generate", json=long) as response:
        next(response.iter_lines())
    nothing = http.post("/generate", json={"text": "Hello", "sampling_params": {"max_new_tokens": 0}}).json()
    assert nothing["meta_info"]["finish_reason"] == {"type": "length", "length": 0}
    assert http.post("/flush_cache?timeout=30").status_code == 200
    assert http.get("/get_load").json()[0]["num_reqs"] == 0
    gauges = dict(
        line.split() for line in http.get("/metrics?labels=none").text.splitlines() if not line.startswith("#")
    )
    assert gauges["sglang:kv_available_tokens"] == gauges["sglang:max_total_num_tokens"]


def test_information(http: httpx.Client) -> None:
    info = http.get("/model_info").json()
    assert (info["model_type"], info["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert http.get("/health_generate").status_code == 200


def test_a_signal_to_the_whole_group_stops_it_cleanly(processes: Processes) -> None:
    server = processes.python("stopped", "backend.launch_server", "--cpu-threads", "1", port=free_port())
    server.wait_ready("/health", START_SECONDS)
    os.killpg(server.popen.pid, signal.SIGTERM)
    assert server.popen.wait(30) == 0
    assert "leaked" not in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("apply_softmax", [False, True])
def test_scores_of_labels(http: httpx.Client, apply_softmax: bool) -> None:
    labels = [http.post("/tokenize", json={"prompt": word}).json()["tokens"][0] for word in (" Paris", " cheese")]
    body = {"query": "The capital of", "items": [" France is", " nothing is"], "label_token_ids": labels}
    answer = http.post("/v1/score", json={**body, "apply_softmax": apply_softmax}).json()
    france, nothing = answer["scores"]
    assert france[0] > 10 * france[1]
    assert france[0] > nothing[0]
    assert (sum(france) == pytest.approx(1)) == apply_softmax
    assert answer["object"] == "scoring"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label_token_ids": []}, "label_token_ids"),
        ({"label_token_ids": [10**6]}, "token id 1000000"),
        ({"items": []}, "items: it is empty"),
        ({"items": [[1, 2]]}, "must both be texts"),
    ],
)
def test_scores_that_cannot_be_given(http: httpx.Client, fields: dict, words: str) -> None:
    answer = http.post("/v1/score", json={"query": "a", "items": ["b"], "label_token_ids": [1], **fields})
    assert answer.status_code == 400
    assert words in answer.json()["message"]


def test_embeddings(sdk: openai.OpenAI) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by two percent."]
    answer = sdk.embeddings.create(model=MODEL, input=texts)
    cat, kitten, rates = (np.array(each.embedding) for each in answer.data)
    assert len(cat) == 576
    assert np.linalg.norm(cat) == pytest.approx(1, abs=1e-5)
    assert cat @ kitten > cat @ rates
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 15
    short = sdk.embeddings.create(model=MODEL, input=texts[0], dimensions=64, encoding_format="float")
    head = cat[:64] / np.linalg.norm(cat[:64])
    assert np.abs(np.array(short.data[0].embedding) - head).max() < 0.02  # bfloat16, another batch


def test_encode_answers_one_or_a_list(http: httpx.Client) -> None:
    one = http.post("/encode", json={"text": "hello there"}).json()
    assert (len(one["embedding"]), one["meta_info"]["finish_reason"]["type"]) == (576, "length")
    several = http.post("/encode", json={"input_ids": [[5, 6, 7], [8, 9]]}).json()
    assert [each["meta_info"]["prompt_tokens"] for each in several] == [3, 2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"input": []}, "input: it is empty"), ({"dimensions": 577}, "at most 576"), ({"encoding_format": "hex"}, "hex")],
)
def test_embeddings_that_cannot_be_given(http: httpx.Client, fields: dict, words: str) -> None:
    answer = http.post("/v1/embeddings", json={"input": "a", **fields})
    assert answer.status_code == 400
    assert words in answer.json()["message"]
