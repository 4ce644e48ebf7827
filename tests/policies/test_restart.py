"""Lost caches: noticed from reports and from times to first token, and not where nothing was lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import Candidate, LeaseBook, RateBook, RouteRequest, WorkerLoad, make_policy
from policies.cost.felt import Felt, feel
from policies.prefix.restart import PATIENCE, SELDOM, STRIKES, RestartDetector, Sent

HEADS = [b"system prompt %d " % number * 250 for number in range(6)]  # 1,000 tokens each
TOKENS = 1050
HIT, MISS = Felt(60.0, True), Felt(1060.0, True)


def prompt(head: int, number: int, at: float, held: bool) -> Sent:
    text = HEADS[head].ljust(4000) + b"%d " % number * 50
    return Sent(at, "", text[:4200], 4000 if held else 0)


def detector(last: float = 10.0) -> RestartDetector:
    """A worker that was sent each head, and knows it."""
    found = RestartDetector()
    for head in range(len(HEADS)):
        found.sent("w", prompt(head, head, last - 10 + head, held=False))
    return found


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=35), st.integers(0, 8))
def test_a_lost_cache_is_doubted_at_the_second_head_that_is_gone_and_certain_by_the_third(heads, delay):
    """``delay``: so many later first tokens come before an answer ends and reports."""
    found, there, late, kept = detector(), set(), [], None
    for number, head in enumerate([*heads, *[None] * delay]):
        if head is not None:
            sent = prompt(head, 100 + number, 20.0 + number, held=True)
            found.sent("w", sent)
            late.append((sent, 1000 if head in there else 0))
            kept = found.felt("w", sent, HIT if head in there else MISS, TOKENS)
            there.add(head)
        if kept is None and number >= delay:
            kept = found.reported("w", *late.pop(0), TOKENS)
        if kept is not None:
            assert len(there) >= STRIKES
            assert {each.at for each in kept} == {20.0 + n for n in range(min(number + 1, len(heads)))}
            assert not found.doubted
            return
        assert ("w" in found.doubted) == (len(there) >= 2)
    assert len(there) < STRIKES


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=60))
def test_stalls_of_a_warm_worker_are_never_proof(answers):
    """Any prompt may take as long as if nothing had been there; reports, where they come, say that all was."""
    found = detector()
    for number, (head, stalled, reports) in enumerate(answers):
        sent = prompt(head, 100 + number, 20.0 + number, held=True)
        found.sent("w", sent)
        assert found.felt("w", sent, MISS if stalled else HIT, TOKENS) is None or not any(r for *_, r in answers)
        if reports:
            assert found.reported("w", sent, 1000, TOKENS) is None


def test_doubts_of_a_worker_that_has_ceased_to_report_end():
    found = RestartDetector()
    first = Sent(0.0, "", b"first " * 700, 0)
    found.sent("w", first)
    assert found.reported("w", first, 0, TOKENS) is None
    for number in range(PATIENCE * SELDOM):
        sent = Sent(1.0 + number, "", b"%d " % number * 1000, 4000)
        found.sent("w", sent)
        if (kept := found.felt("w", sent, MISS, TOKENS)) is not None:
            break
    assert kept
    assert not found.doubted


def test_a_doubted_worker_is_credited_with_what_it_was_sent_since():
    policy = make_policy("cache_aware", seed=0)
    for head in range(6):
        policy.record(RouteRequest(prompt(head, head, 0.0, False).text, TOKENS), "w", float(head))

    def credit(head: int) -> int:
        request = RouteRequest(prompt(head, 99, 0.0, False).text, TOKENS)
        return policy.choose(request, [Candidate("w"), Candidate("other")], 99.0).scores[0].cached_tokens

    def ask(head: int, number: int, at: float) -> RouteRequest:
        request = RouteRequest(prompt(head, number, 0.0, False).text, TOKENS)
        policy.record(request, "w", at)
        return request

    assert credit(5) > 900
    slow = [ask(head, 10 + head, 20.0 + head) for head in (0, 1)]
    for request in slow:
        policy.felt(request, "w", 1060.0, True)
    assert [credit(head) > 900 for head in range(6)] == [True, True, False, False, False, False]
    warm = ask(3, 20, 30.0)  # the engine was only slow: what it says of a head that it got before is the truth
    policy.observe(warm, "w", 1000, 31.0)
    assert credit(5) > 900
    assert policy.stats()["worker_restarts"] == 0


class TestFeel:
    def speeds(self) -> RateBook:
        rates = RateBook()
        for work in (500, 1000, 4000, 2000, 300) * 60:  # without any scatter
            rates.observe("w", work, WorkerLoad(), 20.0 + work * 0.1)
        return rates

    def test_a_time_tells_the_tokens_that_it_was_enough_for(self):
        leases = LeaseBook()
        lease = leases.open("w", 100, 1.0)
        felt = feel(lease, WorkerLoad(), self.speeds(), 1.0 + 0.420)
        assert felt.computed == pytest.approx(4000, rel=0.05)
        assert felt.denies(4100, 4000)
        assert not felt.denies(4100, 0)
        assert feel(lease, WorkerLoad(), RateBook(), 1.4) is None

    def test_only_the_oldest_prompt_feels_a_stall_and_it_counts_from_its_turn(self):
        leases, speeds = LeaseBook(), self.speeds()
        first, second = leases.open("w", 100, 0.0), leases.open("w", 100, 0.1)
        busy = leases.load("w", 0.1)
        assert feel(second, busy, speeds, 2.0) is None
        first.first_token(2.0)
        felt = feel(second, busy, speeds, 2.03)
        assert not felt.alone
        assert felt.computed == pytest.approx(100, abs=30)

    def test_where_others_send_prompts_times_tell_nothing(self):
        leases = LeaseBook()
        lease = leases.open("w", 100, 0.0)
        assert feel(lease, WorkerLoad(others_tokens=5), self.speeds(), 1.0) is None

    def test_what_a_worker_s_times_scatter_by_is_no_work(self):
        """The same time tells less of a worker whose times vary."""
        steady, wild = self.speeds(), self.speeds()
        for number in range(60):
            for rates, factor in ((steady, 1.0), (wild, 3.0 if number % 2 else 1 / 3)):
                rates.observe("w", 1000, WorkerLoad(), 120.0 * factor)
        assert wild.tokens_in("w", 420.0, 0) < 0.6 * steady.tokens_in("w", 420.0, 0)
