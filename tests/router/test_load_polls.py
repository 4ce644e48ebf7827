"""Loads that backends tell: every shape is read, and what others sent counts in placement."""

from __future__ import annotations

import json

import pytest

from policies import LeaseBook
from router.fleet.load_polls import LoadPolls
from router.fleet.load_reports import LoadReport, read_get_load, read_loads, read_vllm_metrics
from router.fleet.told import MOST
from router.fleet.worker import Worker, WorkerSpec
from router.retry import Failure
from router.upstream import UpstreamError
from tests.router.conftest import running, until
from tests.router.fake_backend import FakeBackend

RANK = {"num_running_reqs": 3, "num_waiting_reqs": 2, "num_waiting_uncached_tokens": 900, "gen_throughput": 1.5}
METRICS = b"""# HELP vllm:num_requests_running Running
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
"""


class TestShapes:
    def test_ranks_add_up(self):
        body = json.dumps({"timestamp": 1.0, "loads": [RANK, {**RANK, "dp_rank": 1}]}).encode()
        assert read_loads(body) == LoadReport(10, 6, 1800)

    def test_a_rank_that_tells_no_tokens(self):
        body = json.dumps({"loads": [RANK, {"num_running_reqs": 1, "num_waiting_reqs": 0}]}).encode()
        assert read_loads(body) == LoadReport(6, 4, None)

    def test_the_older_route(self):
        rows = [{"dp_rank": 0, "num_reqs": 7, "num_waiting_reqs": 3, "num_tokens": 5000}]
        assert read_get_load(json.dumps(rows).encode()) == LoadReport(7, 4)
        assert read_get_load(json.dumps(rows[0]).encode()) == LoadReport(7, 4)

    def test_the_gauges_of_vllm(self):
        assert read_vllm_metrics(METRICS) == LoadReport(6, 4)

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b'{"loads": []}', b'{"loads": [{}]}', b"null"])
    def test_anything_else_is_no_report(self, body):
        assert [read(body) for read in (read_loads, read_get_load, read_vllm_metrics)] == [None] * 3

    @pytest.mark.parametrize("number", [b"1e999", b"1.2.3", b"e"])
    def test_a_gauge_that_is_no_number_is_no_report(self, number):
        assert read_vllm_metrics(METRICS.replace(b"1.0", number)) is None

    @pytest.mark.parametrize("field", [b'"\xff"', b"[" * 5000 + b"]" * 5000], ids=["not UTF-8", "deep"])
    def test_what_cannot_be_decoded_is_no_report(self, field):
        rank = b'{"num_running_reqs": %s, "num_reqs": %s, "num_waiting_reqs": %s}' % (field, field, field)
        assert read_loads(b'{"loads": [%s]}' % rank) is None
        assert read_get_load(rank) is None

    def test_counts_are_kept_within_reason(self):
        """A number that fits into no float would fail every decision."""
        huge, negative = 10**400, -5
        rank = {"num_running_reqs": huge, "num_waiting_reqs": negative, "num_waiting_uncached_tokens": huge}
        assert read_loads(json.dumps({"loads": [rank]}).encode()) == LoadReport(MOST, MOST, MOST)
        rank = {"num_reqs": negative, "num_waiting_reqs": huge}
        assert read_get_load(json.dumps(rank).encode()) == LoadReport(0, 0)
        assert read_vllm_metrics(METRICS.replace(b"3.0", b"1e300")) == LoadReport(MOST + 2, MOST)


class Fetcher:
    """Answers by path; the rest is not found. None: nobody listens."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    async def fetch(self, worker, method, path, timeout, body=None):
        self.asked.append(path)
        if self.answers is None:
            raise UpstreamError(Failure.CONNECT, "refused")
        return (200, self.answers[path]) if path in self.answers else (404, b"")


WORKER = Worker(WorkerSpec(url="10.0.0.1:30000"))


def polls(answers):
    leases = LeaseBook()
    fetcher = Fetcher(answers)
    return LoadPolls(fetcher, leases, lambda: 0.0), fetcher, leases


async def test_what_is_beyond_our_leases_is_others_work():
    ours, _, leases = polls({"/v1/loads": json.dumps({"loads": [RANK]}).encode()})
    leases.open(WORKER.url, 400, 0.0)
    assert await ours.ask(WORKER)
    load = leases.load(WORKER.url, 0.0)
    assert (load.others_tokens, load.others_decodes, load.requests) == (500, 3, 1)


async def test_a_backend_that_has_no_more_requests_than_ours_has_no_others():
    ours, _, leases = polls({"/v1/loads": json.dumps({"loads": [RANK]}).encode()})
    for _ in range(5):
        leases.open(WORKER.url, 10, 0.0)
    assert await ours.ask(WORKER)
    load = leases.load(WORKER.url, 0.0)
    assert (load.others_tokens, load.others_decodes) == (0, 0)


async def test_without_tokens_a_waiting_request_is_taken_for_one_of_ours():
    ours, _, leases = polls({"/get_load": json.dumps([{"num_reqs": 9, "num_waiting_reqs": 4}]).encode()})
    for _ in range(400):
        leases.open(WORKER.url, 1000, 0.0).release()
    assert await ours.ask(WORKER)
    load = leases.load(WORKER.url, 0.0)
    assert load.others_tokens == pytest.approx(4000, rel=0.01)
    assert load.others_decodes == 5


async def test_the_source_that_answers_is_asked_again_and_silence_ends_what_was_known():
    ours, fetcher, leases = polls({"/metrics": METRICS})
    assert await ours.ask(WORKER)
    assert await ours.ask(WORKER)
    assert fetcher.asked == ["/v1/loads", "/get_load", "/metrics", "/metrics"]
    assert ours.state(WORKER) == "/metrics"
    assert leases.load(WORKER.url, 0.0).others_decodes == 4
    fetcher.answers = None
    assert not await ours.ask(WORKER)
    assert ours.state(WORKER) == "not told"
    assert leases.load(WORKER.url, 0.0).others_decodes == 0


async def test_a_router_polls_the_workers_that_it_watches(monkeypatch):
    monkeypatch.setattr("router.fleet.load_polls.EVERY_S", 0.01)
    async with running(FakeBackend()) as fleet:
        (worker,) = fleet.router.registry.all()
        await until(lambda: worker.notes["loads"]() == "/get_load")
