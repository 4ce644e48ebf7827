"""Clients of a running router or backend."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
from openai import OpenAI

SECONDS = 100  # a request on a busy machine


def openai_client(url: str) -> OpenAI:
    """The openai SDK without retries of its own, so that a test sees every error."""
    return OpenAI(
        base_url=f"{url}/v1",
        api_key="none",
        max_retries=0,
        timeout=SECONDS,
        http_client=httpx.Client(trust_env=False, timeout=SECONDS),
    )


def model_of(client: OpenAI) -> str:
    """The name of the one model that is served."""
    return client.models.list().data[0].id


@dataclass(slots=True)
class Stream:
    """What one client saw of one streamed answer."""

    tokens: int = 0
    error: str = ""


@dataclass(slots=True)
class Load:
    """Several clients that stream answers one after another until told to stop."""

    url: str
    prompts: Sequence[str]
    requests_each: int
    streams: list[Stream] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin; each prompt has a client of its own."""
        for prompt in self.prompts:
            thread = threading.Thread(target=self._client, args=(prompt,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> list[Stream]:
        """Wait for every client and return what they saw."""
        for thread in self._threads:
            thread.join(SECONDS)
        return self.streams

    def _client(self, prompt: str) -> None:
        with httpx.Client(base_url=self.url, trust_env=False, timeout=SECONDS) as client:
            for number in range(self.requests_each):
                self.streams.append(stream_once(client, f"{prompt} ({number})"))


def stream_once(client: httpx.Client, prompt: str, max_tokens: int = 24) -> Stream:
    """Stream one completion; an error is what a client would notice: a status, an error event, a cut."""
    seen = Stream()
    body = {"prompt": prompt, "stream": True, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    try:
        with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                seen.error = f"{response.status_code} {response.read().decode()}"
                return seen
            done = False
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    done = True
                elif line.startswith('data: {"error"'):
                    seen.error = line
                elif line.startswith("data: "):
                    seen.tokens += 1
            if not done and not seen.error:
                seen.error = "the stream ended without [DONE]"
    except httpx.HTTPError as error:
        seen.error = repr(error)
    return seen
