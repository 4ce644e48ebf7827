"""Why tokens were computed again, and who never says."""

from dataclasses import astuple

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from policies.policy import Decision, RouteRequest, Score
from router.dossier import Attempt, Dossier
from router.shortfall import PATIENCE, ClosedLoop, Shortfall, shortfall


def attempt(chosen, best, cached=None, worker="http://a:1", outcome="ok", reason="spill"):
    scores = (Score(worker, chosen), Score("http://b:1", best))
    return Attempt(Decision(worker, chosen, reason, scores), (), 0.0, outcome, cached)


def test_each_cause():
    assert shortfall(attempt(0, 0), 100, 0) == Shortfall(100, 0, 0)
    assert shortfall(attempt(20, 80), 100, 20) == Shortfall(20, 60, 0)
    assert shortfall(attempt(80, 80), 100, 0) == Shortfall(20, 0, 80)
    assert shortfall(attempt(40, 80), 100, 10) == Shortfall(20, 40, 30)
    assert shortfall(attempt(0, 0), 100, 100) == Shortfall(0, 0, 0)


NUMBER = st.integers(0, 50)


@given(chosen=NUMBER, other=NUMBER, prompt=NUMBER, cached=NUMBER)
def test_the_causes_explain_what_was_computed(chosen, other, prompt, cached):
    chosen, other, cached = min(chosen, prompt), min(other, prompt), min(cached, prompt)
    parts = astuple(shortfall(attempt(chosen, max(chosen, other)), prompt, cached))
    assert min(parts) >= 0
    assert sum(parts) == prompt - cached


def watch(loop, *attempts, tokens=100):
    for each in attempts:
        loop.settled(Dossier(), RouteRequest(b"x", tokens), each)


def test_the_share_of_answers_that_told():
    registry = CollectorRegistry()
    loop = ClosedLoop(registry)
    watch(loop, attempt(0, 0, 50), attempt(0, 0), attempt(0, 0), attempt(0, 0, 9, outcome="status"))
    assert registry.get_sample_value("warmlane_answers_total", {"told": "yes"}) == 1
    assert registry.get_sample_value("warmlane_answers_total", {"told": "no"}) == 2
    assert registry.get_sample_value("warmlane_cache_shortfall_tokens_total", {"cause": "workload"}) == 50


def test_a_worker_that_never_tells_is_named_once_with_what_helps(caplog):
    loop = ClosedLoop(CollectorRegistry())
    watch(loop, attempt(0, 0, 1, worker="http://told:1"))
    watch(loop, *[attempt(0, 0, worker=url) for url in ("http://told:1", "http://mute:1")] * (3 * PATIENCE))
    [record] = caplog.records
    assert "http://mute:1" in record.getMessage()
    assert "--enable-prompt-tokens-details" in record.getMessage()
    assert "--request-usage" in record.getMessage()
