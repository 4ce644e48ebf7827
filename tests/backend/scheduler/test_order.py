import numpy as np
import pytest

from backend.cache import PageAllocator, RadixCache
from backend.sampling_params import SamplingParams
from backend.scheduler.order import LPM_MAX_WAITING, make_order
from backend.scheduler.queue import Request, WaitingQueue


def queue_of(*prompts, **fields):
    queue = WaitingQueue()
    for uid, prompt in enumerate(prompts):
        tokens = np.array(prompt, np.int32)
        own = {name: values[uid] for name, values in fields.items()}
        sampling = SamplingParams(max_new_tokens=own.pop("max_new", 8))
        queue.append(Request(uid, tokens, len(tokens), sampling, 0, [], "", **own))
    return queue


def tree_of(*prompts):
    radix, pages = RadixCache(1), PageAllocator(100)
    for prompt in prompts:
        radix.insert(np.array(prompt, np.int32), pages.alloc(len(prompt)))
    return radix


def order(policy, queue, radix=None, count=10):
    return [request.uid for request in make_order(policy, 0)(queue, radix or RadixCache(1), count)]


def test_first_come_first_served():
    assert order("fcfs", queue_of([1], [2], [3]), count=2) == [0, 1]


def test_longest_prefix_match():
    radix = tree_of([1, 2, 3, 4], [7, 8])
    assert order("lpm", queue_of([9, 9], [7, 8, 5], [1, 2, 3, 4, 5], [1, 5]), radix) == [2, 1, 3, 0]


def test_longest_prefix_match_gives_up_on_long_queues():
    queue = queue_of(*[[9]] * LPM_MAX_WAITING, [1, 2, 3])
    assert order("lpm", queue, tree_of([1, 2, 3]), count=2) == [0, 1]


def test_depth_first_serves_the_fullest_branch_together():
    radix = tree_of([1, 2], [3, 4])
    assert order("dfs-weight", queue_of([1, 2, 5], [3, 4, 6], [9, 9], [3, 4, 7]), radix) == [1, 3, 0, 2]


def test_longest_output_first():
    assert order("lof", queue_of([1], [2], [3], max_new=[4, 9, 6])) == [1, 2, 0]


def test_shortest_prefill_first():
    assert order("shortest-prefill-first", queue_of([1], [2], [3], uncached=[7, 2, 5])) == [1, 2, 0]


def test_priority_then_arrival():
    assert order("priority", queue_of([1], [2], [3], priority=[0, 5, 5])) == [1, 2, 0]


def test_random_is_seeded_and_complete():
    queue = queue_of(*[[i] for i in range(20)])
    first, second = make_order("random", 3), make_order("random", 3)
    drawn = [request.uid for request in first(queue, RadixCache(1), 20)]
    assert drawn == [request.uid for request in second(queue, RadixCache(1), 20)]
    assert sorted(drawn) == list(range(20))
    assert drawn != list(range(20))


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match="schedule policy 'best' is unknown; known: fcfs"):
        make_order("best", 0)


def test_the_queue_counts_its_uncached_tokens():
    queue = queue_of([1], [2], uncached=[4, 6])
    assert queue.uncached_tokens == 10
    queue.remove(next(iter(queue)))
    assert queue.uncached_tokens == 6
