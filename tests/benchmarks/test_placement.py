"""The placement benchmark: traffic, one table from runs or from their file, verdicts, the studies beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import placement
from benchmarks.placement_results import LIVE, REPLAY, Report, Run, table, text, verdicts
from benchmarks.placement_studies import until_right
from benchmarks.placement_workloads import TRACE, possible, prompt_text, unique_tokens, workloads
from policies.sim import Result, SimRequest


def trace_file(folder):
    """Forty requests in batches of four, each 3 s after the last, that share their first block."""
    path = folder / "trace.jsonl"
    lines = [
        {"timestamp": 3000 * (n // 4), "input_length": 1300, "output_length": 20, "hash_ids": [0, n % 5 + 1, 9 + n]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def result(ttft, cached=0, predicted=0, engine=0) -> Result:
    count = len(ttft)
    numbers = [np.broadcast_to(np.array(value, np.int64), count) for value in (cached, predicted, engine)]
    return Result(np.arange(count, dtype=float), np.array(ttft, float), np.full(count, 100), *numbers, 2)


def report(ours: Result, peer: Result) -> Report:
    found = Report({"date": "today"}, {"chat": 0.9})
    for seed in range(3):
        found.runs.append(Run.of("chat", LIVE, "warmlane", seed, ours))
        found.runs.append(Run.of("chat", LIVE, "another", seed, peer))
        for who in ("cache_aware", "greedy-1"):
            found.runs.append(Run.of("chat", REPLAY, who, seed, ours))
    return found


class TestTraffic:
    def test_the_trace_is_slowed_down_and_its_batches_are_spread(self, tmp_path):
        workload = workloads(trace_file(tmp_path), 30)[0]
        requests = workload.requests(0)
        assert (workload.name, len(requests)) == (TRACE, 30)
        assert requests != workload.requests(1)
        assert requests == workload.requests(0)
        for number, request in enumerate(sorted(requests, key=lambda request: request.segments[-1])):
            batch = number // 4 * 3.0 / 0.85
            assert batch <= request.arrival <= batch + 3.0 / 0.85

    def test_equal_prefixes_are_equal_text(self, tmp_path):
        first, *_, other = workloads(trace_file(tmp_path))[0].requests(0)
        shared = 0
        for (one, size), (two, _) in zip(
            zip(first.segments, first.sizes, strict=True), zip(other.segments, other.sizes, strict=True), strict=True
        ):
            if one != two:
                break
            shared += size * 4
        assert shared >= 512 * 4
        assert prompt_text(first)[:shared] == prompt_text(other)[:shared]
        assert prompt_text(first)[shared : shared + 64] != prompt_text(other)[shared : shared + 64]
        assert len(prompt_text(first)) == first.prompt_tokens * 4

    def test_a_quarter_of_the_working_set_and_the_best_hit_rate(self):
        requests = [SimRequest(0.0, (1, 2), (30, 10), 5, 3), SimRequest(1.0, (1, 2, 3), (30, 10, 5), 5)]
        assert unique_tokens(requests) == 45
        assert possible(requests) == pytest.approx(45 / 85)


class TestReport:
    def test_the_table_from_the_file_is_the_table(self, tmp_path):
        found = report(result([1.0, 2.0]), result([3.0, 4.0]))
        found.findings.append("something else")
        found.save(tmp_path / "report.json")
        loaded = Report.load(tmp_path / "report.json")
        assert loaded == found
        assert text(loaded, (TRACE,)) == text(found, (TRACE,))
        assert "| conversation | | no trace given |" in text(loaded, (TRACE,))

    def test_medians_with_the_least_and_the_most(self):
        found = Report({}, {})
        found.runs = [Run.of("chat", LIVE, "warmlane", seed, result([mean])) for seed, mean in enumerate((1, 5, 2))]
        (line,) = table(found).splitlines()[2:]
        assert "| chat | live | warmlane | 0.000 (0.000-0.000) | 2.000 (1.000-5.000) |" in line
        assert line.endswith("| 0 1 2 |")

    @pytest.mark.parametrize(
        ("ours", "peer", "reached"),
        [
            (result([1.0], cached=50), result([1.5], cached=50), True),
            (result([1.0], cached=50), result([1.5], cached=52), False),  # fewer hits
            (result([1.6], cached=50), result([1.5], cached=50), False),  # slower
        ],
    )
    def test_it_is_judged_by_the_best_of_the_others(self, ours, peer, reached):
        (line,) = [line for line in verdicts(report(ours, peer)) if "live: " in line]
        assert ("NOT reached" not in line) is reached

    def test_a_file_of_something_else_is_refused(self, tmp_path, capsys):
        path = tmp_path / "other.json"
        path.write_text('{"rounds": 5}')
        with pytest.raises(SystemExit, match="holds no report of this benchmark"):
            placement.main(["--from", str(path)])

    def test_from_prints_a_saved_report_and_draws_it(self, tmp_path, capsys):
        pytest.importorskip("matplotlib")
        report(result([1.0, 2.0]), result([3.0, 4.0])).save(tmp_path / "report.json")
        placement.main(["--from", str(tmp_path / "report.json"), "--plots", str(tmp_path)])
        assert "| chat | live | another |" in capsys.readouterr().out
        assert {path.name for path in tmp_path.glob("*.png")} == {"placement-live.png", "placement-replay.png"}
        assert all(path.stat().st_size < 150_000 for path in tmp_path.glob("*.png"))

    def test_a_page_gets_the_report_between_its_marks(self, tmp_path, capsys):
        page, saved = tmp_path / "page.md", tmp_path / "report.json"
        report(result([1.0, 2.0]), result([3.0, 4.0])).save(saved)
        page.write_text(f"before\n{placement.BEGIN}\nold\n{placement.END}\nafter\n")
        for _ in range(2):
            placement.main(["--from", str(saved), "--page", str(page)])
        head, _, tail = page.read_text().partition("| chat | live | another |")
        assert head.startswith(f"before\n{placement.BEGIN}\n\n- date: today")
        assert tail.endswith(f"{placement.END}\nafter\n")
        assert "old" not in page.read_text()
        page.write_text("no marks")
        with pytest.raises(SystemExit, match="has no lines"):
            placement.main(["--from", str(saved), "--page", str(page)])


class TestStudies:
    def test_predictions_are_right_again_when_the_next_ones_are(self):
        predicted = np.zeros(100)
        predicted[10:17] = 200  # after the loss at 10 s seven are wrong
        assert until_right(result([1.0] * 100, predicted=predicted, engine=1), 10.0) == 7
        assert until_right(result([1.0] * 100, predicted=200, engine=1), 10.0) is None

    def test_everything_in_replay(self, tmp_path, capsys):
        output = tmp_path / "report.json"
        arguments = ["--no-live", "--requests", "40", "--seeds", "2", "--policies", "cache_aware", "greedy-1"]
        placement.main([*arguments, "--trace", str(trace_file(tmp_path)), "--output", str(output)])
        said = capsys.readouterr().out
        for workload in ("conversation", "multi-turn", "hot-spot", "unequal engines"):
            assert f"| {workload} | replay | cache_aware |" in said
        assert "no trace given" not in said
        assert "hit rate of cache_aware, 4 routers apart" in said
        assert "requests to that engine until predictions are right" in said
        assert Report.load(output).about["trace"] == "trace.jsonl"

    def test_a_trace_that_is_not_there_is_one_line(self, tmp_path):
        with pytest.raises(SystemExit, match=r"benchmarks\.placement: cannot read the trace"):
            placement.main(["--trace", str(tmp_path / "none.jsonl"), "--no-live"])
