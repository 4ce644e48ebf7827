"""A cut stream and its continuation, compared with the stream that was never cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.resume import Events, Plan, Refused, make_transcript, plan

WORDS = ["Once", " upon", " a", " time", ",", " he", "llo", " wörld", "."]


def event(fields: dict) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


class Backend:
    """A model that says WORDS in order, one a token, from wherever the prompt got to. Ids are positions in WORDS."""

    def __init__(self, path: str, name: str, incremental: bool = False) -> None:
        self.path, self.name, self.incremental = path, name, incremental

    def stream(self, body: dict) -> list[bytes]:
        start, prompt = self._start(body), 7
        limit = body.get("max_tokens") or body.get("sampling_params", {}).get("max_new_tokens") or 99
        words = WORDS[start : start + limit]
        reason = "length" if start + limit <= len(WORDS) else "stop"
        maker = {"/v1/chat/completions": self._chat, "/v1/completions": self._text, "/generate": self._native}[
            self.path
        ]
        return [*maker(body, words, start, prompt + start, reason), b"data: [DONE]\n\n"]

    def _start(self, body: dict) -> int:
        """How many tokens of the answer the prompt holds."""
        if "messages" in body:
            last = body["messages"][-1]
            said = last["content"] if last["role"] == "assistant" else ""
            assert bool(said) == bool(body.get("continue_final_message"))
        elif isinstance(prompt := body.get("prompt", body.get("input_ids")), list):
            return len(prompt) - 3
        else:
            said = (body.get("prompt") or body["text"]).removeprefix("Tell: ")
        return next(n for n in range(len(WORDS) + 1) if "".join(WORDS[:n]) == said)

    def _openai(self, body: dict, choices: list[dict], prompt: int, count: int) -> list[bytes]:
        shared = {"id": self.name, "created": len(self.name), "model": "m"}
        usage = {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}
        usage["prompt_tokens_details"] = {"cached_tokens": prompt}
        events = [event({**shared, "choices": [{"index": 0, **choice}]}) for choice in choices]
        if body.get("stream_options"):
            events.append(event({**shared, "choices": [], "usage": usage}))
        return events

    def _chat(self, body: dict, words: list[str], start: int, prompt: int, reason: str) -> list[bytes]:
        choices: list[dict] = [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
        choices += [{"delta": {"content": word}, "finish_reason": None} for word in words]
        choices += [{"delta": {}, "finish_reason": reason}]
        return self._openai(body, choices, prompt, len(words))

    def _text(self, body: dict, words: list[str], start: int, prompt: int, reason: str) -> list[bytes]:
        choices = [{"text": word, "finish_reason": None} for word in words] + [{"text": "", "finish_reason": reason}]
        return self._openai(body, choices, prompt, len(words))

    def _native(self, body: dict, words: list[str], start: int, prompt: int, reason: str) -> list[bytes]:
        events = []
        for index in range(len(words)):
            said = words[index : index + 1] if self.incremental else words[: index + 1]
            first = start + (index if self.incremental else 0)
            done = index == len(words) - 1
            finish = {"type": reason, **({"length": index + 1} if reason == "length" else {})} if done else None
            meta = {"id": self.name, "prompt_tokens": prompt, "completion_tokens": index + 1, "finish_reason": finish}
            events.append(event({
                "text": "".join(said), "output_ids": list(range(first, start + index + 1)), "meta_info": meta
            }))  # fmt: skip
        return events


def request_for(path: str, limit: int | None, ids: bool, usage: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"stream": True, "temperature": 0.5}
    if path == "/generate":
        body |= {"input_ids": [1, 2, 3]} if ids else {"text": "Tell: "}
        return body | ({"sampling_params": {"max_new_tokens": limit}} if limit else {})
    body |= {"stream_options": {"include_usage": True}} if usage else {}
    body |= {"max_tokens": limit} if limit else {}
    if path == "/v1/completions":
        return body | {"prompt": [1, 2, 3] if ids else "Tell: "} | ({} if limit else {"max_tokens": 50})
    return body | {"messages": [{"role": "user", "content": "Tell"}]}


def play(path: str, body: dict, cuts: list[int], incremental: bool = False) -> bytes:
    """What the client gets when the n-th backend is cut after its cuts[n]-th event and the rest goes elsewhere."""
    judged = plan(path, json.dumps(body).encode())
    assert isinstance(judged, Plan), judged
    transcript, client = make_transcript(judged), b""
    for number in range(len(cuts) + 1):
        events = Backend(path, f"backend-{number}", incremental).stream(body)
        upto = cuts[number] if number < len(cuts) else len(events)
        for one in events[:upto]:
            client += transcript.relay(one)
        if transcript.done:
            break
        if transcript.finished:
            return client + transcript.closing()
        tokens = tokenise(transcript.text) if transcript.needs_tokens else None
        continued = transcript.resume(tokens)
        assert continued is not None
        body = json.loads(continued)
    return client


def tokenise(text: str) -> list[int]:
    return list(range(next(n for n in range(len(WORDS) + 1) if "".join(WORDS[:n]) == text)))


def without_usage(stream: bytes) -> list[Any]:
    return [
        one for one in map(json.loads, (part[6:] for part in stream.split(b"\n\n")[:-2])) if one.get("choices") != []
    ]


@given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions", "/generate"]),
    cuts=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    limit=st.one_of(st.none(), st.integers(1, 12)),
    ids=st.booleans(),
    usage=st.booleans(),
)
def test_the_client_sees_the_stream_that_was_never_cut(path, cuts, limit, ids, usage):
    body = request_for(path, limit, ids, usage)
    whole = b"".join(Backend(path, "backend-0").stream(body))
    got = play(path, body, cuts)
    assert got.endswith(b"data: [DONE]\n\n")
    assert without_usage(got) == without_usage(whole)
    if usage and b'"usage"' in got:
        parts = [json.loads(part[6:]) for part in got.split(b"\n\n")[:-2]]
        expected = [json.loads(part[6:]) for part in whole.split(b"\n\n")[:-2]]
        assert parts[-1] == expected[-1]


@given(cut=st.integers(2, 8), limit=st.one_of(st.none(), st.integers(2, 12)))
def test_generate_with_new_tokens_only(cut, limit):
    body = request_for("/generate", limit, ids=False, usage=False)
    got = play("/generate", body, [cut], incremental=True)
    whole = b"".join(Backend("/generate", "backend-0", incremental=True).stream(body))
    assert without_usage(got) == without_usage(whole)


@given(st.binary(max_size=40), st.lists(st.integers(0, 30), max_size=6))
def test_whatever_is_fed_in_whatever_pieces_the_events_are_the_stream(noise, cuts):
    stream = b"data: a\n\n: hi\r\n\r\ndata: b\ndata: c\n\n" + noise
    events, out, last = Events(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        out += events.feed(stream[last:cut] if cut >= last else b"")
        last = max(last, cut)
    assert b"".join(out) + events.close() == stream
    assert all(one.endswith((b"\n\n", b"\r\n")) for one in out)


REFUSED = [
    ({"n": 2}, "several answers"),
    ({"sampling_params": {"n": 2}}, "several answers"),
    ({"best_of": 3}, "several answers"),
    ({"tools": [{"type": "function"}]}, "tools"),
    ({"logprobs": True}, "logprobs"),
    ({"return_logprob": True}, "logprobs"),
    ({"response_format": {"type": "json_object"}}, "structured"),
    ({"sampling_params": {"regex": "a"}}, "structured"),
    ({"logprobs": 0}, "logprobs"),
    ({"seed": 0}, "seeded"),
    ({"sampling_params": {"sampling_seed": 4}}, "seeded"),
    ({"stream": False}, "no stream"),
    ({"messages": "x"}, "messages"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED)
def test_what_cannot_be_continued_is_refused_with_the_reason(fields, reason):
    body = {**request_for("/v1/chat/completions", None, False, False), **fields}
    judged = plan("/v1/chat/completions", json.dumps(body).encode())
    assert isinstance(judged, Refused)
    assert reason in judged.reason


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/generate", {"text": ["a"]}),
        ("/generate", {"input_ids": [[1], [2]]}),
        ("/generate", {"text": "a", "sampling_params": [{}]}),
        ("/v1/embeddings", {"input": "a"}),
    ],
)
def test_several_prompts_and_other_routes_are_refused(path, fields):
    assert isinstance(plan(path, json.dumps({"stream": True, **fields}).encode()), Refused)


@pytest.mark.parametrize(
    "fields", [{"n": 1}, {"tools": []}, {"logprobs": False}, {"response_format": {"type": "text"}}]
)
def test_fields_that_ask_for_nothing_special_are_no_obstacle(fields):
    body = {**request_for("/v1/chat/completions", None, False, False), **fields}
    assert isinstance(plan("/v1/chat/completions", json.dumps(body).encode()), Plan)


def started(*deltas: dict) -> Any:
    judged = plan("/v1/chat/completions", json.dumps(request_for("/v1/chat/completions", 9, False, False)).encode())
    assert isinstance(judged, Plan)
    transcript = make_transcript(judged)
    for delta in deltas:
        transcript.relay(event({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}))
    return transcript


def test_without_a_count_of_tokens_it_is_not_continued():
    transcript = started({"content": "Once"})
    assert transcript.needs_tokens
    assert transcript.resume(None) is None


@pytest.mark.parametrize("delta", [{"tool_calls": [{}]}, {"reasoning_content": "hm"}])
def test_an_answer_that_is_more_than_text_is_not_continued(delta):
    transcript = started(delta)
    assert transcript.spoiled
    assert transcript.resume([]) is None


def test_a_message_that_was_continued_already_is_continued_further():
    body = request_for("/v1/chat/completions", 9, False, False)
    body["messages"].append({"role": "assistant", "content": "He said: "})
    judged = plan("/v1/chat/completions", json.dumps({**body, "continue_final_message": True}).encode())
    assert isinstance(judged, Plan)
    transcript = make_transcript(judged)
    transcript.relay(event({"id": "x", "choices": [{"index": 0, "delta": {"content": "Once"}}]}))
    continued = json.loads(transcript.resume([0]))
    assert continued["messages"][-1] == {"role": "assistant", "content": "He said: Once"}
    assert len(continued["messages"]) == 2


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize(
    ("path", "odd"),
    [
        ("/v1/chat/completions", {"choices": [{"delta": {"content": [{"type": "text", "text": "a"}]}}]}),
        ("/v1/chat/completions", {"choices": [None]}),
        ("/v1/chat/completions", {"choices": {"0": {}}}),
        ("/v1/completions", {"choices": [{"text": 5}]}),
        ("/generate", {"text": ["a"]}),
        ("/generate", {"meta_info": 5}),
    ],
)
def test_an_event_of_another_shape_passes_and_ends_the_hope_to_continue(path, odd, resumed):
    body = {"stream": True, **({"text": "x"} if path == "/generate" else {"prompt": "x", "messages": []})}
    judged = plan(path, json.dumps(body).encode())
    transcript = make_transcript(judged)
    if resumed:
        assert transcript.resume([]) is not None
    assert transcript.relay(event(odd)) == event(odd)
    assert transcript.spoiled
    assert transcript.resume([]) is None


def test_nothing_is_too_deep_to_be_looked_at():
    deep = b"[" * 5000 + b"]" * 5000
    assert isinstance(plan("/generate", b'{"stream": true, "text": "x", "a": %b}' % deep), Refused)
    transcript = make_transcript(plan("/generate", b'{"stream": true, "text": "x"}'))
    odd = b'data: {"a": %b}\n\n' % deep
    assert transcript.relay(odd) == odd
