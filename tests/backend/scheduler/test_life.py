"""Pauses, the memory check at idle, and how often newcomers are looked at."""

import pytest

from backend.messages import ToScheduler
from backend.scheduler.invariants import InvariantError, idle_problem
from tests.backend.scheduler.harness import Harness

OVERLAP = [{}, {"overlap": True, "late": True}]


def started(steps=3, **limits):
    harness = Harness(**limits)
    harness.add([1] * 6, [2] * 5, max_new=12, stop_ids=())
    for _ in range(steps):
        harness.step()
    return harness


@pytest.mark.parametrize("limits", OVERLAP)
@pytest.mark.parametrize("mode", ["in_place", "retract"])
def test_a_pause_stops_everything_and_a_resume_goes_on_as_if_nothing_had_been(mode, limits):
    harness = started(**limits)
    harness.scheduler.receive(ToScheduler(pause=mode))
    assert harness.step().stats.paused
    steps, told = harness.runner.steps, sum(map(len, harness.outputs.values()))
    assert not harness.scheduler.has_work
    (late,) = harness.add([3] * 4, max_new=2)
    harness.step()
    assert (harness.runner.steps, sum(map(len, harness.outputs.values()))) == (steps, told)
    harness.scheduler.receive(ToScheduler(resume=True))
    assert not harness.step().stats.paused
    harness.run()
    assert late in harness.finished
    harness.check_answers()


@pytest.mark.parametrize("limits", OVERLAP)
def test_a_pause_in_place_keeps_rows_and_cache_and_a_retracting_one_gives_them_up(limits):
    for mode, running, flushed in (("in_place", 2, False), ("retract", 0, True)):
        harness = started(**limits)
        harness.scheduler.receive(ToScheduler(pause=mode, flush_cache=7))
        out = harness.step()
        assert (out.stats.running, out.flushed) == (running, (7, flushed))
        assert (out.stats.cached_tokens == 0) == flushed or not flushed
        harness.scheduler.receive(ToScheduler(resume=True))
        harness.run()
        harness.check_answers()


def test_retracted_requests_wait_in_the_order_of_their_arrival():
    harness = started()
    harness.scheduler.receive(ToScheduler(pause="retract"))
    assert [request.uid for request in harness.scheduler.admission.waiting] == [1, 2]
    stats = harness.step().stats
    assert stats.retracted_input_tokens_total == 11
    assert stats.retracted_output_tokens_total == sum(map(len, harness.outputs.values()))


@pytest.mark.parametrize("mode", ["in_place", "retract"])
def test_an_abort_during_a_pause_leaves_nothing(mode):
    harness = started(overlap=True, late=True)
    harness.scheduler.receive(ToScheduler(pause=mode))
    harness.step()  # brings what was under way
    harness.abort(1)
    harness.abort(2)
    harness.step()
    assert not harness.scheduler.requests
    harness.scheduler.receive(ToScheduler(resume=True))
    harness.run()
    harness.check_answers()


def test_newcomers_are_looked_at_once_in_so_many_steps_while_others_run():
    harness = Harness(decode_steps=4)
    harness.add([1, 2], max_new=30, stop_ids=())
    harness.step()
    (late,) = harness.add([3, 4], max_new=1, stop_ids=())
    waited = 0
    while late not in harness.cached:
        harness.step()
        waited += 1
    assert waited == 4
    harness.run()
    harness.check_answers()


BREAKAGES = {
    "pages": lambda rows: rows.pages.alloc(1),
    "slots": lambda rows: rows.slots.stop_running(rows.slots.occupy(99, rows.slots.tokens[0][:2], 2, 4)),
    "cached pages": lambda rows: rows.radix.lock(next(iter(rows.radix.nodes()))),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_lost_memory_is_found_at_idle_logged_and_mended_in_production(what, caplog):
    harness = Harness(check_invariants=False)
    harness.add([1] * 8, max_new=2, stop_ids=())
    harness.run()
    BREAKAGES[what](harness.scheduler.rows)
    assert what in idle_problem(harness.scheduler.rows)
    harness.step()
    assert "memory accounting is wrong while idle" in caplog.text
    assert idle_problem(harness.scheduler.rows) is None
    harness.add([1] * 8, [2] * 9, max_new=6, stop_ids=())
    harness.run()
    harness.check_answers()


@pytest.mark.parametrize("what", BREAKAGES)
def test_lost_memory_fails_a_test(what):
    harness = Harness()
    harness.add([1] * 8, max_new=2, stop_ids=())
    harness.run()
    BREAKAGES[what](harness.scheduler.rows)
    with pytest.raises(InvariantError):
        harness.step()


@pytest.mark.parametrize("limits", OVERLAP)
def test_what_a_failed_step_computed_is_not_read_from_the_cache(limits):
    harness = Harness(**limits)
    launch = harness.runner.launch

    def broken(batch, slots):
        step = launch(batch, slots)
        step.tokens = lambda: 1 // 0
        return step

    harness.runner.launch = broken
    (failed,) = harness.add([1] * 8, max_new=3, stop_ids=())
    harness.step()
    harness.runner.launch = launch
    harness.run()
    (again,) = harness.add([1] * 8, max_new=3, stop_ids=())
    harness.run()
    assert harness.finished[failed].status_code == 500
    assert harness.cached[again] == 0
    harness.check_answers()
