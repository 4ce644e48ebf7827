"""What enters the tree while requests run, and who waits for it."""

import pytest

from tests.backend.scheduler.harness import Harness

HEAD = [1 + i % 3 for i in range(40)]


def test_a_shared_head_is_read_as_soon_as_it_is_computed():
    harness = Harness(prefill_budget=40, num_pages=400, context_length=400)
    _, second = harness.add(HEAD + [2] * 300, [*HEAD, 3], max_new=1, stop_ids=())
    harness.run()
    harness.check_answers()
    assert harness.cached[second] == 40
    assert harness.runner.steps == 9  # the second one beside the last chunk of the first, not after it


def test_a_prompt_is_computed_once_however_many_ask_for_it_at_once():
    harness = Harness(max_running_requests=8, num_pages=400, prefill_budget=64)
    harness.add(*[HEAD] * 6, max_new=1, stop_ids=())
    harness.run()
    harness.check_answers()
    assert harness.runner.computed <= len(HEAD) + 5 * 2


def test_what_a_step_under_way_computes_is_shared_only_when_it_has_not_failed():
    """The page that a prompt and its first output token fill may not be read before that token's step has ended."""
    harness = Harness(late=True, overlap=True, page_size=4)
    [uid] = harness.add([1, 2, 1, 2, 1, 2, 1], max_new=6, stop_ids=())
    harness.step()
    launch = harness.runner.launch

    def failing(batch, slots):
        step = launch(batch, slots)

        def fail():
            raise RuntimeError("device lost")

        step.tokens = fail
        return step

    harness.runner.launch = failing
    harness.step()  # launches the step that fails, and settles the prompt's
    assert harness.scheduler.rows.radix.cached_pages == 1
    harness.runner.launch = launch
    harness.run()
    assert harness.finished[uid].kind == "abort"
    assert harness.scheduler.rows.radix.cached_pages == 1


@pytest.mark.parametrize(("first", "second", "cached"), [("", "", 40), ("a", "a", 40), ("a", "b", 0), ("", "a", 0)])
def test_only_requests_of_one_namespace_share(first, second, cached):
    harness = Harness(prefill_budget=64, num_pages=100)
    harness.add([*HEAD, 1], namespace=first, max_new=1, stop_ids=())
    [uid] = harness.add([*HEAD, 2], namespace=second, max_new=1, stop_ids=())
    harness.run()
    assert harness.cached[uid] == cached
