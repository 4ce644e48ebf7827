"""Which attempts may follow which failures."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.config import RetrySettings
from router.retry import Attempts, Failure


def attempts(replayable: bool = True, **settings) -> Attempts:
    return Attempts(RetrySettings(**settings), replayable, Random(1))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(list(Failure))), max_size=20), st.integers(1, 6))
def test_there_are_never_more_attempts_than_allowed(failures, limit):
    """One attempt is made before each note; a stale connection is repeated once for free."""
    tries, made = attempts(attempts=limit), 0
    for worker, failure in failures:
        made += 1
        if not tries.note(worker, failure):
            break
    assert made <= limit + 1


def test_a_failed_worker_is_excluded_until_all_were_tried():
    tries = attempts()
    assert tries.note("a", Failure.RESET)
    assert tries.excluded == {"a"}
    assert tries.note("b", Failure.STATUS, 500)
    assert tries.next_round() is not None
    assert tries.excluded == {"b"}


@pytest.mark.parametrize(("failure", "status"), [(Failure.TIMEOUT, 0), (Failure.STATUS, 500), (Failure.STATUS, 504)])
def test_what_would_fail_again_is_not_repeated_on_the_same_worker(failure, status):
    tries = attempts()
    tries.note("a", failure, status)
    assert tries.next_round() is None


@pytest.mark.parametrize("failure", list(Failure))
def test_a_request_with_effects_follows_only_a_connection_that_was_never_made(failure):
    assert attempts(replayable=False).note("a", failure, 503) == (failure is Failure.CONNECT)


def test_a_stale_connection_is_free_once():
    tries = attempts(attempts=1)
    assert tries.note("a", Failure.STALE)
    assert tries.excluded == set()
    assert not tries.note("a", Failure.STALE)


def test_pauses_grow_within_their_limit():
    tries = attempts(attempts=9, initial_backoff=1.0, max_backoff=3.0, multiplier=2.0, jitter=0.0)
    pauses = []
    for _ in range(4):
        tries.note("a", Failure.CONNECT)
        pauses.append(tries.next_round())
    assert pauses == [1.0, 2.0, 3.0, 3.0]
