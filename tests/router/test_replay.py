"""``python -m router.replay``: traces in, a table out; errors in one line."""

from __future__ import annotations

import gzip
import json

import pytest

from policies.sim import EngineSpec
from router.replay import NAMES, Setup, main, replay, row
from router.traces import TraceError, at_rate, read_trace, spread

MOONCAKE = [
    {
        "timestamp": 3000 * (index // 4),
        "input_length": 1300,
        "output_length": 20,
        "hash_ids": [0, index % 5 + 1, 9 + index],
    }
    for index in range(40)
]


def write(path, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def trace(tmp_path):
    return write(tmp_path / "trace.jsonl.gz", MOONCAKE)


class TestReading:
    def test_mooncake(self, trace):
        requests = read_trace(trace)
        assert len(requests) == 40
        assert requests[5].arrival == 3.0
        assert (requests[0].segments, requests[0].sizes) == ((0, 1, 9), (512, 512, 276))
        assert len(read_trace(trace, 7)) == 7

    def test_bailian(self, tmp_path):
        line = {"chat_id": 7, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 40, "output_length": 3}
        path = write(
            tmp_path / "t.jsonl", [line | {"hash_ids": [1, 2, 3]}, line | {"timestamp": 60, "hash_ids": [1, 2, 3]}]
        )
        first, second = read_trace(path)
        assert (first.sizes, first.session) == ((16, 16, 8), "7")
        assert second.arrival == 1.5

    def test_a_recording_with_its_own_block_size(self, tmp_path):
        line = {"timestamp": 5, "input_length": 150, "output_length": 0, "hash_ids": [1, 2, 3], "block_size": 64}
        (request,) = read_trace(write(tmp_path / "t.jsonl", [line]))
        assert (request.sizes, request.output_tokens) == ((64, 64, 22), 1)

    def test_a_prompt_with_fewer_numbers_than_blocks_keeps_its_length(self, tmp_path):
        line = {"timestamp": 0, "input_length": 150, "output_length": 1, "hash_ids": [1, 2], "block_size": 64}
        (request,) = read_trace(write(tmp_path / "t.jsonl", [line]))
        assert request.prompt_tokens == 150

    def test_a_length_that_nobody_has_takes_no_memory(self, tmp_path):
        line = {"timestamp": 0, "input_length": 10**12, "output_length": 1, "hash_ids": [1, 2]}
        (request,) = read_trace(write(tmp_path / "t.jsonl", [line]))
        assert request.sizes == (512, 10**12 - 512)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "has no requests"),
            ("nonsense", "line 1 is not JSON"),
            ("[" * 100_000, "line 1 is not JSON"),
            ("[1]", "line 1 is not a JSON object"),
            ('{"timestamp": 1}', "line 1 has no field 'hash_ids'"),
            ('{"timestamp": 1, "hash_ids": [], "input_length": 5, "output_length": 1}', "5 tokens with 0 blocks"),
            ('{"timestamp": 1, "hash_ids": [1], "input_length": 5, "output_length": 1, "block_size": 0}', "block_size"),
            ('{"timestamp": 1, "hash_ids": [1], "input_length": 5, "output_length": 1, "block_size": null}', "int"),
            ('{"timestamp": 1, "hash_ids": [1], "input_length": 1e999, "output_length": 1}', "infinity"),
            ('{"timestamp": NaN, "hash_ids": [1], "input_length": 5, "output_length": 1}', "nan is no timestamp"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path, text, says):
        path = tmp_path / "t.jsonl"
        path.write_text(text)
        with pytest.raises(TraceError, match=says):
            read_trace(path)

    def test_batches_can_be_spread_and_the_rate_changed(self, trace):
        requests = spread(at_rate(read_trace(trace), 0.5), 6.0, seed=1)
        arrivals = [request.arrival for request in requests]
        assert arrivals == sorted(arrivals)
        assert len(set(arrivals)) == 40
        assert 54 <= max(arrivals) <= 60


class TestReplaying:
    @pytest.mark.parametrize("name", NAMES)
    def test_every_policy_serves_every_request(self, trace, name):
        setup = Setup((EngineSpec(20_000),) * 2, routers=2, told=True, polled=True)
        result = replay(read_trace(trace), name, setup, seed=0)
        assert (result.ttft > 0).all()
        hit_rate, mean, p50, _, p99, imbalance = row(result)
        assert 0 < hit_rate < 1
        assert p50 <= p99
        assert mean > 0
        assert 1 <= imbalance <= 2

    def test_the_command_prints_a_line_a_policy(self, trace, capsys):
        main([str(trace), "--policy", "cache_aware", "--policy", "greedy-1", "--backends", "2", "--kv-tokens", "20000"])
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["policy", "cache_aware", "greedy-1"]

    def test_errors_are_one_line(self, trace, tmp_path):
        with pytest.raises(SystemExit, match="cannot read the trace"):
            main([str(tmp_path / "none.jsonl")])
        with pytest.raises(SystemExit, match="does not fit into --kv-tokens 100"):
            main([str(trace), "--kv-tokens", "100"])
        with pytest.raises(SystemExit, match="there is no folder"):
            main([str(trace), "--plot", str(tmp_path / "none" / "out.png")])
        with pytest.raises(SystemExit, match=r"a \.png file"):
            main([str(trace), "--plot", str(tmp_path / "out.zzz")])

    def test_a_damaged_archive_is_one_line(self, tmp_path):
        path = tmp_path / "t.jsonl.gz"
        whole = bytearray(gzip.compress(b'{"timestamp": 1}' * 1000))
        whole[20:30] = b"\xff" * 10
        path.write_bytes(whole)
        with pytest.raises(SystemExit, match="cannot read the trace"):
            main([str(path)])

    @pytest.mark.parametrize("option", [("--rate", "inf"), ("--spread", "nan"), ("--spread", "-1")])
    def test_numbers_that_make_no_sense_are_refused(self, trace, option, capsys):
        with pytest.raises(SystemExit):
            main([str(trace), *option])
        assert "must be a number" in capsys.readouterr().err

    def test_the_plot(self, trace, tmp_path):
        pytest.importorskip("matplotlib")
        picture = tmp_path / "out.png"
        main([str(trace), "--policy", "cache_aware", "--kv-tokens", "20000", "--plot", str(picture)])
        assert picture.read_bytes().startswith(b"\x89PNG")
