"""Two real backends behind the real router, as clients, nginx and Prometheus see them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.clients import model_of, openai_client
from tests.e2e.nginx_server import start_nginx
from tests.e2e.processes import Process, Processes, free_port, wait_until
from tests.e2e.prometheus_server import SCRAPED_SECONDS, query, start_prometheus, targets_of

QUESTION = {"role": "user", "content": "What is the capital of France?"}
LONG_SYSTEM = {"role": "system", "content": "You are a careful assistant who answers in one short sentence. " * 30}


@pytest.fixture(scope="module")
def client(router: Process) -> Iterator[openai.OpenAI]:
    with openai_client(router.url) as found:
        yield found


@pytest.fixture(scope="module")
def model(client: openai.OpenAI) -> str:
    return model_of(client)


@pytest.fixture(scope="module")
def nginx(processes: Processes, router: Process, tmp_path_factory: pytest.TempPathFactory) -> Process:
    return start_nginx(processes, tmp_path_factory.mktemp("nginx"), free_port(), [router.url.removeprefix("http://")])


def chat_text(client: openai.OpenAI, model: str, stream: bool) -> str:
    if not stream:
        answer = client.chat.completions.create(model=model, messages=[QUESTION], temperature=0, max_tokens=24)
        return answer.choices[0].message.content
    events = client.chat.completions.create(model=model, messages=[QUESTION], temperature=0, max_tokens=24, stream=True)
    return "".join(event.choices[0].delta.content or "" for event in events if event.choices)


def test_chat_knows_the_capital_of_france(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=[QUESTION], temperature=0, max_tokens=24)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat_is_the_same_text(client: openai.OpenAI, model: str) -> None:
    assert chat_text(client, model, stream=True) == chat_text(client, model, stream=False)


def test_streamed_usage_comes_last(client: openai.OpenAI, model: str) -> None:
    events = list(
        client.chat.completions.create(
            model=model, messages=[QUESTION], max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
    )
    assert events[-1].usage.completion_tokens <= 4
    assert all(event.usage is None for event in events[:-1])


def test_completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="The capital of France is", temperature=0, max_tokens=8)
    assert "Paris" in answer.choices[0].text
    assert answer.usage.completion_tokens <= 8


def test_native_generate(router: Process) -> None:
    body = {"text": "The capital of France is", "sampling_params": {"temperature": 0, "max_new_tokens": 8}}
    answer = httpx.post(f"{router.url}/generate", json=body, timeout=60, trust_env=False).json()
    assert "Paris" in answer["text"]
    assert answer["meta_info"]["completion_tokens"] == len(answer["output_ids"])


def test_a_second_request_with_the_same_start_hits_the_cache(client: openai.OpenAI, model: str) -> None:
    def cached(question: str) -> int:
        messages = [LONG_SYSTEM, {"role": "user", "content": question}]
        answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=4)
        return answer.usage.prompt_tokens_details.cached_tokens

    first = cached("What is the capital of France?")
    second = cached("Who wrote Romeo and Juliet?")
    assert second > max(first, 200)


@pytest.mark.parametrize(
    ("fields", "word"),
    [({"max_tokens": -1}, "max_tokens"), ({"temperature": "hot"}, "temperature"), ({"messages": []}, "messages")],
)
def test_a_wrong_field_is_named(client: openai.OpenAI, model: str, fields: dict, word: str) -> None:
    body = {"model": model, "messages": [QUESTION], **fields}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**body)
    assert word in str(refused.value)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="no-such-model", messages=[QUESTION])
    assert "no-such-model" in str(refused.value)


@pytest.mark.program("nginx", "nginx-light")
def test_through_nginx(nginx: Process, client: openai.OpenAI, model: str) -> None:
    with openai_client(nginx.url) as outside:
        assert chat_text(outside, model, stream=True) == chat_text(client, model, stream=False)
    for path in ("/metrics", "/workers", "/flush_cache", "/server_info"):
        assert httpx.get(nginx.url + path, trust_env=False).status_code == 403


@pytest.mark.program("prometheus", "prometheus")
def test_prometheus_sees_the_fleet(
    processes: Processes, router: Process, backends: list[Process], client: openai.OpenAI, model: str, tmp_path: Path
) -> None:
    chat_text(client, model, stream=False)
    hosts = [process.url.removeprefix("http://") for process in backends]
    front = router.url.removeprefix("http://")
    prometheus = start_prometheus(processes, tmp_path, {"warmlane-router": [front], "warmlane-backend": hosts})
    everybody = dict.fromkeys([front, *hosts], "up")
    wait_until(lambda: targets_of(prometheus) == everybody, SCRAPED_SECONDS, "all targets to be up")
    jobs = {sample["metric"]["job"] for sample in query(prometheus, "up == 1")}
    assert jobs == {"warmlane-router", "warmlane-backend"}
    assert query(prometheus, "sum(warmlane_policy_decisions_total) > 0")
    generated = query(prometheus, 'sum by (instance) ({__name__="sglang:generation_tokens_total"})')
    assert {sample["metric"]["instance"] for sample in generated} <= set(hosts)
    assert sum(float(sample["value"][1]) for sample in generated) > 0
