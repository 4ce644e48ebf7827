"""Two thousand requests while backends fail at random: none is lost, nothing is left behind."""

from __future__ import annotations

from benchmarks.soak import soak


async def test_no_request_is_lost_while_one_backend_is_well():
    report = await soak(lambda report: report.requests >= 2000, seed=7)
    assert report.statuses["200"] > 1500
    assert (report.lost, report.wrong) == (0, [])
    assert set(report.left.values()) == {0}
    assert len(report.faults) >= 8
