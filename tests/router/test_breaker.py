"""The circuit breaker: what opens it, what closes it, and that one probe passes at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from router.breaker import PROBE_SECONDS, Breaker, BreakerState, Permit
from router.config import BreakerSettings

SETTINGS = BreakerSettings(failures=3, successes=1, cool_down=1.0, max_cool_down=4.0)


def opened(now: float = 0.0, settings: BreakerSettings = SETTINGS) -> Breaker:
    breaker = Breaker(settings)
    for _ in range(settings.failures):
        breaker.begin(now).failure(now)
    return breaker


def test_failures_in_a_row_open_it():
    breaker = Breaker(SETTINGS)
    for _ in range(2):
        breaker.begin(0).failure(0)
    assert breaker.admits(0)
    breaker.begin(0).failure(0)
    assert breaker.state(0) is BreakerState.OPEN
    assert not breaker.admits(0.99)


def test_a_success_between_failures_starts_the_count_again():
    breaker = Breaker(SETTINGS)
    for verdict in ("failure", "failure", "success", "failure", "failure"):
        permit = breaker.begin(0)
        permit.success() if verdict == "success" else permit.failure(0)
    assert breaker.closed


@given(st.integers(1, 100))
def test_neutral_ends_neither_hurt_nor_heal(count):
    breaker = Breaker(SETTINGS)
    for _ in range(2):
        breaker.begin(0).failure(0)
    for _ in range(count):
        breaker.begin(0).neutral()
    assert breaker.closed
    breaker.begin(0).failure(0)
    assert not breaker.closed


def test_half_open_lets_one_probe_pass_at_a_time():
    breaker = opened()
    assert breaker.state(1) is BreakerState.HALF_OPEN
    assert breaker.admits(1)
    probe = breaker.begin(1)
    assert not breaker.admits(1)
    probe.neutral()
    assert breaker.admits(1)


def test_a_probe_that_takes_long_gives_way_to_another():
    breaker = opened()
    breaker.begin(1)
    assert not breaker.admits(PROBE_SECONDS)
    assert breaker.admits(1 + PROBE_SECONDS)


def test_the_first_byte_of_a_probe_closes_it():
    breaker = opened()
    breaker.begin(1).first_byte()
    assert breaker.closed


def test_the_cool_down_doubles_up_to_its_limit_and_a_whole_answer_resets_it():
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        before = now
        while not breaker.admits(now):
            now += 0.25
        pauses.append(now - before)
        breaker.begin(now).failure(now)
    assert pauses == [1, 2, 4, 4, 4]
    now += 4
    breaker.begin(now).success()
    for _ in range(3):
        breaker.begin(now).failure(now)
    assert breaker.admits(now + 1)


def test_a_worker_that_begins_answers_and_cuts_them_opens_it_again_with_a_longer_pause():
    breaker = opened()
    permit = breaker.begin(1)
    permit.first_byte()
    permit.failure(1)
    assert not breaker.admits(2.9)
    assert breaker.admits(3)


def test_what_was_sent_before_it_opened_has_no_say():
    breaker = Breaker(SETTINGS)
    old = [breaker.begin(0) for _ in range(2)]
    for _ in range(3):
        breaker.begin(0).failure(0)
    old[0].success()
    assert not breaker.closed
    old[1].failure(0.5)
    assert breaker.admits(1)


def test_a_recovered_health_check_ends_the_cool_down():
    breaker = opened()
    breaker.recheck(0.2)
    assert breaker.state(0.2) is BreakerState.HALF_OPEN


def test_several_successes_may_be_asked_for():
    breaker = opened(settings=BreakerSettings(failures=1, successes=2, cool_down=1.0))
    breaker.begin(1).success()
    assert not breaker.closed
    breaker.begin(1).success()
    assert breaker.closed


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: no two fresh probes at once, and it can always come back."""

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(SETTINGS)
        self.now = 0.0
        self.permits: list[Permit] = []

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def send_if_admitted(self):
        if self.breaker.admits(self.now):
            probing = not self.breaker.closed
            self.permits.append(self.breaker.begin(self.now))
            assert not (probing and self.breaker.admits(self.now))

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), verdict=st.sampled_from(["first_byte", "success", "failure", "neutral"]))
    def end(self, data, verdict):
        permit = data.draw(st.sampled_from(self.permits))
        permit.failure(self.now) if verdict == "failure" else getattr(permit, verdict)()

    @invariant()
    def it_admits_somebody_in_the_end(self):
        assert self.breaker.admits(self.now + max(SETTINGS.max_cool_down, PROBE_SECONDS) + 1)


TestBreakerMachine = BreakerMachine.TestCase
