"""A source's workers and those of others in one fleet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.fleet.discovery.membership import Membership
from router.fleet.registry import Registry
from router.fleet.worker import WorkerSpec

ADDRESSES = st.lists(st.sampled_from(["a:1", "b:1", "c:1", "d:1"]), max_size=6)


def urls(registry: Registry) -> set[str]:
    return {worker.url for worker in registry.all()}


@given(st.lists(ADDRESSES, max_size=6), ADDRESSES)
def test_the_fleet_is_what_the_source_says_and_what_others_brought(turns, others):
    registry = Registry()
    for address in set(others):
        registry.add(WorkerSpec(url=address))
    membership = Membership(registry, "test")
    for turn in turns:
        membership.become(WorkerSpec(url=address) for address in turn)
        assert urls(registry) == {f"http://{address}" for address in {*turn, *others}}


def test_a_worker_that_stays_keeps_its_identity_and_takes_its_new_settings():
    registry = Registry()
    membership = Membership(registry, "test")
    membership.become([WorkerSpec(url="a:1")])
    (before,) = registry.all()
    membership.become([WorkerSpec(url="a:1", priority=7), WorkerSpec(url="a:1", priority=8)])
    (after,) = registry.all()
    assert after is before
    assert after.spec.priority == 7


def test_a_worker_that_an_operator_removed_comes_back_with_the_next_word_of_its_source():
    registry = Registry()
    membership = Membership(registry, "test")
    membership.become([WorkerSpec(url="a:1")])
    registry.remove(registry.all()[0])
    membership.become([WorkerSpec(url="a:1")])
    assert urls(registry) == {"http://a:1"}
