import pytest

from backend.scheduler.invariants import InvariantError, check_invariants
from tests.backend.scheduler.fake_runner import STOP, reference
from tests.backend.scheduler.harness import Harness


def prompt(*parts):
    """A prompt of runs: (token, count), ..."""
    return [token for token, count in parts for _ in range(count)]


def test_a_batch_answers_what_the_model_says():
    harness = Harness()
    harness.add([1, 2, 3], [4, 5], [6] * 20, [7], [8, 9, 10])
    harness.run()
    harness.check_answers()


def test_a_prompt_longer_than_the_budget_takes_several_steps_beside_running_rows():
    harness = Harness(prefill_budget=4)
    (short,) = harness.add([1, 2], max_new=12, stop_ids=())
    harness.step()
    harness.add([3] * 13, max_new=1)
    before = len(harness.outputs[short])
    for _ in range(4):
        harness.step()
    assert len(harness.outputs[short]) == before + 4
    harness.run()
    harness.check_answers()


def test_a_second_prompt_reads_the_cached_prefix_of_the_first():
    harness = Harness()
    (first,) = harness.add(prompt((1, 10), (2, 3)), max_new=1)
    harness.run()
    (second,) = harness.add(prompt((1, 10), (3, 3)), max_new=1)
    computed = harness.runner.computed
    harness.run()
    assert harness.cached == {first: 0, second: 10}
    assert harness.runner.computed - computed == 3
    harness.check_answers()


def test_a_fully_cached_prompt_still_computes_its_last_token():
    harness = Harness()
    harness.add([1] * 8, max_new=1)
    harness.run()
    (again,) = harness.add([1] * 8, max_new=3)
    harness.run()
    assert harness.cached[again] == 6
    harness.check_answers()


def test_the_output_is_cached_for_the_next_turn():
    harness = Harness()
    (first,) = harness.add([1, 2, 3], max_new=9, stop_ids=())
    harness.run()
    history = [1, 2, 3, *harness.outputs[first]]
    (second,) = harness.add([*history, 5], max_new=1)
    harness.run()
    assert harness.cached[second] == 10  # the last token of a full-length output is never computed
    harness.check_answers()


def test_equal_prompts_in_flight_end_on_the_same_pages():
    harness = Harness()
    uids = harness.add([1] * 9, [1] * 9, [1] * 9, max_new=8, stop_ids=())
    for _ in range(8):
        harness.step()
    slots, requests = harness.scheduler.slots, harness.scheduler.requests
    rows = [slots.row_pages(requests[uid].slot)[:4].tolist() for uid in uids]
    assert rows[0] == rows[1] == rows[2]
    harness.run()
    harness.check_answers()


def test_namespaces_do_not_share():
    harness = Harness()
    harness.add([1] * 8, max_new=1, namespace="a")
    harness.run()
    (other,) = harness.add([1] * 8, max_new=1, namespace="b")
    harness.run()
    assert harness.cached[other] == 0


def test_without_the_radix_cache_nothing_is_kept():
    harness = Harness(radix_cache=False)
    harness.add([1] * 8, [1] * 8)
    harness.run()
    (again,) = harness.add([1] * 8)
    harness.run()
    assert harness.cached[again] == 0
    assert harness.scheduler.rows.pages.free_pages == harness.limits.num_pages
    harness.check_answers()


def test_rows_are_retracted_when_pages_run_out_and_answer_all_the_same():
    harness = Harness(num_pages=12, context_length=24)
    harness.scheduler.admission.ratio.value = 0.0  # admit as if nobody ever wrote much
    harness.add(*[[i, i + 1, i + 2] for i in range(4)], max_new=15, stop_ids=())
    for _ in range(400):
        harness.scheduler.admission.ratio.value = 0.0
        if not harness.scheduler.has_work:
            break
        harness.step()
    harness.run()
    assert harness.scheduler.stats.retracted_total > 0
    harness.check_answers()


def test_a_retracted_request_is_told_its_cached_tokens_once():
    harness = Harness(num_pages=10, context_length=20)
    harness.scheduler.admission.ratio.value = 0.0
    uids = harness.add([1, 2], [3, 4], [5, 6], max_new=14, stop_ids=())
    harness.run()
    assert harness.cached == dict.fromkeys(uids, 0)
    harness.check_answers()


def test_a_request_that_can_never_fit_is_aborted_with_its_size():
    harness = Harness(num_pages=4, context_length=64)
    (big,) = harness.add([1] * 20)
    (small,) = harness.add([2] * 3, max_new=2)
    harness.run()
    assert harness.finished[big].kind == "abort"
    assert "20 tokens, but the KV cache holds 8" in harness.finished[big].message
    assert harness.finished[small].kind != "abort"
    harness.check_answers()


def test_the_last_row_without_room_is_aborted_not_the_server():
    harness = Harness(num_pages=4, context_length=64)
    (uid,) = harness.add([1, 2], max_new=40, stop_ids=())
    harness.run()
    assert harness.finished[uid].kind == "abort"
    assert len(harness.outputs[uid]) == 7
    harness.check_answers()


@pytest.mark.parametrize("steps", range(6))
def test_abort_at_any_moment_leaves_nothing(steps):
    harness = Harness(prefill_budget=4)
    first, second = harness.add([1] * 10, [2] * 6, max_new=20, stop_ids=())
    for _ in range(steps):
        harness.step()
    harness.abort(first)
    harness.abort(first)
    harness.run()
    assert harness.finished[second].kind == "length"
    harness.check_answers()


def test_max_new_tokens_zero_fills_the_cache_only():
    harness = Harness()
    (uid,) = harness.add([1] * 9, max_new=0)
    harness.run()
    assert harness.outputs == {}
    assert harness.finished[uid].kind == "length"
    (again,) = harness.add([1] * 9, max_new=1)
    harness.run()
    assert harness.cached[again] == 8
    harness.check_answers()


def test_the_queue_limit_refuses_with_503():
    harness = Harness(max_running_requests=1, max_queued_requests=1)
    harness.add([1, 2], max_new=5, stop_ids=())
    harness.step()
    queued, refused = harness.add([3], [4])
    harness.run()
    assert harness.finished[refused].status_code == 503
    assert harness.finished[queued].kind != "abort"


def test_flush_is_refused_while_requests_run_and_empties_the_cache_after():
    from backend.messages import ToScheduler

    harness = Harness()
    harness.add([1] * 6)
    harness.step()
    harness.scheduler.receive(ToScheduler(flush_cache=7))
    assert harness.step().flushed == (7, False)
    harness.run()
    harness.scheduler.receive(ToScheduler(flush_cache=8))
    assert harness.step().flushed == (8, True)
    assert harness.scheduler.rows.pages.free_pages == harness.limits.num_pages


def test_the_same_messages_give_the_same_batches():
    def batches():
        harness, seen = Harness(), []
        launch = harness.runner.launch
        harness.runner.launch = lambda batch, slots: seen.append(batch) or launch(batch, slots)
        harness.add(*[[i % 3] * (i + 1) for i in range(9)])
        harness.run()
        return [[array.tolist() for array in (b.rows, b.starts, b.lens, b.samples)] for b in seen]

    assert batches() == batches()


def test_single_token_rows_come_first_each_part_in_slot_order():
    harness, seen = Harness(prefill_budget=6), []
    launch = harness.runner.launch
    harness.runner.launch = lambda batch, slots: seen.append(batch) or launch(batch, slots)
    harness.add([1] * 5, [2] * 9, [3] * 7, [4], max_new=10, stop_ids=())
    harness.run()
    for batch in seen:
        singles = int((batch.lens == 1).sum())
        assert (batch.lens[:singles] == 1).all()
        for part in (batch.rows[:singles], batch.rows[singles:]):
            assert part.tolist() == sorted(part.tolist())


def test_a_lost_page_is_found():
    harness = Harness()
    harness.scheduler.rows.pages.alloc(1)
    with pytest.raises(InvariantError, match="pages lost"):
        check_invariants(harness.scheduler)


OVERLAP = {"overlap": True, "late": True}


def test_overlap_launches_the_next_step_before_the_last_one_is_seen():
    harness = Harness(**OVERLAP)
    (uid,) = harness.add([1, 2, 3], max_new=4, stop_ids=())
    launched = []
    for _ in range(4):
        harness.step()
        launched.append((harness.runner.steps, len(harness.outputs.get(uid, []))))
    assert launched == [(1, 0), (2, 1), (3, 2), (4, 3)]
    harness.run()
    harness.check_answers()


def test_overlap_wastes_no_step_on_a_length_that_is_known():
    plain, overlapped = Harness(), Harness(**OVERLAP)
    for harness in (plain, overlapped):
        harness.add([1, 2, 3], [4] * 5, max_new=7, stop_ids=())
        harness.run()
        harness.check_answers()
    assert overlapped.runner.computed == plain.runner.computed


def test_the_token_after_a_stop_that_was_seen_late_is_not_replied():
    prompt = next([a, b] for a in range(1, 17) for b in range(1, 17) if reference([a, b], 9)[-1] == STOP)
    harness = Harness(**OVERLAP)
    (uid,) = harness.add(prompt, max_new=30)
    harness.run()
    assert harness.outputs[uid] == reference(prompt, 30)
    assert harness.runner.computed == len(prompt) + len(harness.outputs[uid])  # the stop token itself was computed
    harness.check_answers()


def test_a_row_is_given_to_nobody_while_a_launched_step_refers_to_it():
    harness = Harness(**OVERLAP, max_running_requests=1)
    (first,) = harness.add([1] * 6, max_new=9, stop_ids=())
    harness.step()
    harness.step()
    harness.abort(first)
    assert harness.scheduler.slots.free_slots == 0
    (second,) = harness.add([2] * 6, max_new=3, stop_ids=())
    harness.run()
    assert len(harness.outputs[second]) == 3
    harness.check_answers()


def test_prompts_of_the_next_request_survive_the_late_token_of_the_one_before():
    harness = Harness(**OVERLAP, max_running_requests=1, prefill_budget=64)
    starts = [[a, b] for a in range(1, 9) for b in range(1, 9) if reference([a, b], 9)[-1] == STOP]
    harness.add(*[start + [3] * 12 for start in starts], *starts, max_new=9)
    harness.run()
    harness.check_answers()


def test_a_prompt_that_is_being_computed_is_waited_for_and_then_read():
    harness = Harness(prefill_budget=20, num_pages=200, context_length=128, max_running_requests=4)
    head = [1, 2, 3, 4] * 15
    uids = harness.add(head + [5], head + [6], head + [7], max_new=2, stop_ids=())
    harness.run()
    assert [harness.cached[uid] for uid in uids] == [0, 60, 60]
    assert harness.runner.computed < 80
    harness.check_answers()


def test_others_pass_a_request_that_waits_for_a_prefix():
    harness = Harness(prefill_budget=25, num_pages=200, context_length=128)
    head = [1, 2, 3, 4] * 15
    first, second = harness.add(head, head + [9], max_new=8, stop_ids=())
    (other,) = harness.add([7, 8], max_new=1, stop_ids=())
    harness.step()
    harness.step()
    harness.step()
    assert other in harness.cached
    assert first in harness.cached
    harness.run()
    assert harness.cached[second] == 50  # the last tokens of the head are too few to be waited for
    harness.check_answers()


def test_while_no_slot_is_free_nobody_who_waits_is_looked_at(monkeypatch):
    harness = Harness(max_running_requests=1, schedule_policy="lpm")
    harness.add([1, 2], max_new=8, stop_ids=())
    harness.step()
    asked = []
    monkeypatch.setattr(harness.scheduler.rows.radix, "matched_tokens", lambda *_: asked.append(1) or 0)
    harness.add([1, 2, 3], max_new=2)
    arrived = len(asked)
    for _ in range(4):
        harness.step()
    assert len(asked) == arrived
    harness.run()
    harness.check_answers()


def test_the_queue_limit_counts_only_those_that_must_wait():
    harness = Harness(max_running_requests=4, max_queued_requests=1)
    harness.add([1], [2], [3], [4], [5], max_new=3, stop_ids=())
    (refused,) = harness.add([6])
    harness.run()
    assert harness.finished[refused].status_code == 503
    assert [harness.finished[uid].kind for uid in range(1, 6)] == ["length"] * 5


def test_namespaces_without_pages_are_not_kept():
    harness = Harness()
    for i in range(50):
        harness.add([1], max_new=0, namespace=f"salt {i}")
        harness.run()
    assert len(harness.scheduler.rows.radix._roots) == 0


def test_uncached_waiting_tokens_are_those_that_the_cache_lacks():
    harness = Harness(max_running_requests=1)
    harness.add([1] * 10, max_new=1)
    harness.run()
    harness.add([2] * 4, max_new=30, stop_ids=())
    harness.step()
    harness.add([1] * 10, [3] * 5)
    assert harness.step().stats.waiting_uncached_tokens == 2 + 5


def test_a_step_that_fails_aborts_its_requests_and_nobody_elses():
    harness = Harness(max_running_requests=2, overlap=True)
    first, second = harness.add([1] * 6, [2] * 6, max_new=5, stop_ids=())
    (third,) = harness.add([1] * 6, max_new=4, stop_ids=())
    launch = harness.runner.launch

    def broken(batch, slots):
        step = launch(batch, slots)

        def fail():
            raise RuntimeError("the device is on fire")

        step.tokens = fail
        return step

    harness.step()
    harness.runner.launch = broken
    harness.step()
    harness.runner.launch = launch
    harness.run()
    assert harness.finished[first].kind == harness.finished[second].kind == "abort"
    assert harness.finished[first].status_code == 500
    assert harness.finished[third].kind == "length"
    harness.check_answers()


def test_extreme_parameters_do_not_break_the_slots():
    harness = Harness()
    harness.add([1, 2], stop_ids=(10**15, -5, STOP), top_k=2**40, repetition_penalty=1e-50, top_p=1e-50, min_p=1.0)
    harness.run()
    assert len(harness.finished) == 1


def test_stop_ids_of_one_request_cost_the_others_nothing():
    harness, others = Harness(), tuple(range(1000, 50_000))
    width = harness.scheduler.slots.stop_ids.shape[1]
    harness.add([1, 2], [3, 4], stop_ids=(STOP, *others), max_new=20)
    harness.add([5, 6], max_new=20)
    harness.run()
    harness.check_answers()
    assert harness.scheduler.slots.stop_ids.shape[1] == width
    assert not harness.scheduler.slots.many_stop_ids


def test_many_stop_ids_of_one_request_cost_the_others_nothing():
    harness, many = Harness(), (STOP, 1, 2, 3, *range(1000, 50_000))
    width = harness.scheduler.slots.stop_ids.shape[1]
    first, second = harness.add([1, 2], [3, 4], stop_ids=many, max_new=30)
    harness.add([5, 6], max_new=30)
    harness.run()
    harness.check_answers()
    assert (harness.finished[first].kind, harness.finished[second].kind) == ("stop", "stop")
    assert harness.scheduler.slots.stop_ids.shape[1] == width
    assert not harness.scheduler.slots.many_stop_ids


def test_a_higher_priority_takes_the_place_of_a_running_request():
    harness = Harness(max_running_requests=1, schedule_policy="priority", preemption_threshold=10)
    (low,) = harness.add([1, 2], max_new=10, stop_ids=())
    harness.step()
    (middle,) = harness.add([3, 4], max_new=3, stop_ids=(), priority=10)
    harness.step()
    assert harness.scheduler.stats.retracted_total == 0  # not high enough
    (high,) = harness.add([5, 6], max_new=3, stop_ids=(), priority=11)
    order = []
    while harness.scheduler.has_work:
        order += [finish.uid for finish in harness.step().finished]
    assert order == [high, middle, low]
    assert harness.scheduler.stats.retracted_total == 1
    harness.check_answers()
