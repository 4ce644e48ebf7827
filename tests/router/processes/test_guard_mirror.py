"""Breakers of several processes: what mirrors tell and are shown amounts to the breaker that one process has."""

from hypothesis import given, settings
from hypothesis import strategies as st

from router.breaker import BreakerState
from router.config import BreakerSettings
from router.fleet.worker import Worker, WorkerSpec
from router.guards import Guards
from router.processes.guard_mirror import GuardMirror, apply, view_of
from router.processes.messages import Rest, Verdict

URL = "http://127.0.0.1:1"
SETTINGS = BreakerSettings(failures=3, successes=1, cool_down=1.0, max_cool_down=4.0)


class Household:
    """An owner and two data processes, between which messages take no time."""

    def __init__(self):
        self.now = 0.0
        self.owner = Guards(SETTINGS)
        self.mirrors = [GuardMirror(SETTINGS, self.sent) for _ in range(2)]
        for guards in (self.owner, *self.mirrors):
            guards.add(URL)

    def sent(self, message):
        if isinstance(message, Verdict):
            apply(self.owner, message, self.now)
        elif isinstance(message, Rest):
            self.owner.rest_until(message.url, message.until)
        for mirror in self.mirrors:
            mirror.show(URL, view_of(self.owner.breaker(URL)), self.owner.rests_until(URL), self.now)


def usable(guards, now) -> bool:
    """Is the worker taken although another one is there?"""
    workers = [Worker(WorkerSpec(url=URL)), Worker(WorkerSpec(url="http://127.0.0.1:2"))]
    return len(guards.usable(workers, now)) == 2


STEP = st.tuples(
    st.sampled_from(["begin", "begin", "first_byte", "ok", "status", "silent", "client_gone", "wait", "rest"]),
    st.integers(0, 1),
    st.integers(0, 30),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=60))
def test_mirrors_decide_as_the_owner_of_the_breaker_would(steps):
    house, one = Household(), Guards(SETTINGS)
    one.add(URL)
    permits = []
    for what, process, number in steps:
        mirror = house.mirrors[process]
        if what == "begin":
            permits.append((mirror, mirror.begin(URL, house.now), one.begin(URL, house.now)))
        elif what == "wait":
            house.now += number / 10
        elif what == "rest":
            mirror.rest(URL, number / 10, house.now)
            one.rest(URL, number / 10, house.now)
        elif permits:
            mirror, theirs, ours = permits[number % len(permits)]
            if what == "first_byte":
                mirror.first_byte(theirs, URL, house.now)
                one.first_byte(ours, URL, house.now)
            else:
                mirror.settle(theirs, URL, what, house.now)
                one.settle(ours, URL, what, house.now)
        states = {guards.state(URL, house.now) for guards in (one, house.owner, *house.mirrors)}
        assert len(states) == 1
        assert {usable(guards, house.now) for guards in (one, *house.mirrors)} == {usable(one, house.now)}


def test_failures_of_all_processes_count_together():
    house = Household()
    for index in (0, 1, 0):
        mirror = house.mirrors[index]
        mirror.settle(mirror.begin(URL, 0.0), URL, "status", 0.0)
    assert [mirror.state(URL, 0.0) for mirror in house.mirrors] == [BreakerState.OPEN] * 2


def test_a_healthy_fleet_costs_no_message():
    house, sent = Household(), []
    mirror = GuardMirror(SETTINGS, sent.append)
    mirror.add(URL)
    for _ in range(100):
        permit = mirror.begin(URL, 0.0)
        mirror.first_byte(permit, URL, 0.0)
        mirror.settle(permit, URL, "ok", 0.0)
    assert sent == []
    assert house.owner.state(URL, 0.0) is BreakerState.CLOSED


def test_one_probe_for_all_processes():
    house = Household()
    for _ in range(3):
        mirror = house.mirrors[0]
        mirror.settle(mirror.begin(URL, 0.0), URL, "status", 0.0)
    house.now = 2.0
    assert usable(house.mirrors[1], 2.0)
    house.mirrors[0].begin(URL, 2.0)
    assert not usable(house.mirrors[1], 2.0)
