"""Recorded traces: readable by replay, with the shape of the traffic and without its text."""

import json

import pytest

from policies.policy import Decision, RouteRequest
from router.app import Router
from router.config import RouterConfig
from router.dossier import Attempt, Dossier
from router.trace import BLOCK_TOKENS, TraceRecorder
from router.traces import read_trace
from tests.router.conftest import chat, running
from tests.router.fake_backend import FakeBackend

HEAD = b"the same beginning of every prompt. " * 100


def settle(recorder, text, at, tokens, outcome="ok", **more):
    dossier, route = Dossier("id"), RouteRequest(text, tokens, "m")
    attempt = Attempt(Decision("w", 5, "warm"), (), at, outcome, **more)
    dossier.attempts.append(attempt)
    recorder.settled(dossier, route, attempt)


def test_lines_have_lengths_times_and_blocks_but_no_text(tmp_path):
    path = tmp_path / "trace.jsonl"
    recorder = TraceRecorder(path)
    settle(recorder, HEAD + b"one", 10.0, 900, prompt_tokens=901, output_tokens=7, cached_tokens=3, ttft_ms=12.5)
    settle(recorder, HEAD + b"two", 11.5, 900, outcome="client_gone")
    settle(recorder, HEAD, 12.0, 900, outcome="connect")
    recorder.close()
    first, second = map(json.loads, path.read_text().splitlines())
    assert (first["timestamp"], second["timestamp"]) == (0, 1500)
    assert (first["input_length"], first["output_length"], first["ttft_ms"]) == (901, 7, 12.5)
    assert first["cached_tokens"] == 3
    assert first["hash_ids"][:-1] == second["hash_ids"][:-1]
    assert first["hash_ids"][-1] != second["hash_ids"][-1]
    assert abs(len(first["hash_ids"]) - 901 / BLOCK_TOKENS) <= 1
    assert "beginning" not in path.read_text()


def test_a_short_first_prompt_does_not_cut_the_others(tmp_path):
    path = tmp_path / "trace.jsonl"
    recorder = TraceRecorder(path)
    settle(recorder, b"Hi", 0.0, 1, prompt_tokens=40)  # mostly the template's
    for at, end in enumerate((b"one", b"two")):
        settle(recorder, HEAD[:2000] + end * 600, at, 950, prompt_tokens=950)
    recorder.close()
    _, one, two = read_trace(path)
    assert len(one.segments) == 950 // BLOCK_TOKENS + 1
    assert 440 <= BLOCK_TOKENS * len(set(one.segments) & set(two.segments)) <= 550


def test_denser_text_than_the_first_is_told_apart_to_its_end(tmp_path):
    path = tmp_path / "trace.jsonl"
    recorder = TraceRecorder(path)
    settle(recorder, HEAD, 0.0, 2000)
    for at, end in enumerate((b"one", b"two")):
        settle(recorder, HEAD + HEAD + end, at, 500)
    recorder.close()
    _, one, two = read_trace(path)
    assert one.segments[-1] != two.segments[-1]
    assert one.prompt_tokens == two.prompt_tokens == 500


def test_a_prompt_of_one_letter_does_not_spoil_the_recording(tmp_path):
    path = tmp_path / "trace.jsonl"
    recorder = TraceRecorder(path)
    settle(recorder, b"a", 0.0, 0, outcome="client_gone")
    recorder.close()
    assert read_trace(path)[0].prompt_tokens == 1


def test_two_runs_give_the_same_text_different_numbers(tmp_path):
    for name in "ab":
        recorder = TraceRecorder(tmp_path / name)
        settle(recorder, HEAD, 0.0, 900)
        recorder.close()
    one, two = (json.loads((tmp_path / name).read_text())["hash_ids"] for name in "ab")
    assert not set(one) & set(two)


def test_a_recording_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        recorder = TraceRecorder(path)
        settle(recorder, HEAD, 7.0, 900)
        settle(recorder, HEAD, 9.25, 900)
        recorder.close()
        with path.open("a") as file:
            file.write('{"timestamp":99999.0,"input_le')  # its router was killed
    TraceRecorder(path).close()
    assert [json.loads(line)["timestamp"] for line in path.read_text().splitlines()] == [0, 2250, 2250, 4500]
    assert [request.arrival for request in read_trace(path)] == [0, 2.25, 2.25, 4.5]


def test_a_file_that_is_no_recording_loses_nothing(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("notes without an end")
    TraceRecorder(path).close()
    assert path.read_text() == "notes without an end"


async def test_replay_reads_what_the_router_recorded(tmp_path):
    path = tmp_path / "trace.jsonl"
    async with running(FakeBackend(), record_trace=str(path)) as fleet:
        for last in ("one", "two", "three"):
            body = chat(HEAD.decode() + last, max_tokens=2)
            async with fleet.client.post("/v1/chat/completions", json=body) as answer:
                await answer.read()
    requests = read_trace(path)
    assert len(requests) == 3
    shared = set(requests[0].segments) & set(requests[1].segments) & set(requests[2].segments)
    assert len(shared) >= len(requests[0].segments) - 1
    assert all(request.prompt_tokens > 800 for request in requests)


async def test_a_trace_that_cannot_be_written_stops_the_start(tmp_path):
    router = Router(RouterConfig(host="127.0.0.1", port=0, record_trace=str(tmp_path / "no" / "such" / "folder")))
    with pytest.raises(OSError, match=r"--record-trace .*folder: No such file"):
        await router.start()
