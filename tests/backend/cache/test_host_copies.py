"""Copies between the tiers: their order, who waits for them, and what a failed one does."""

import contextlib
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.attention.arriving import ArrivingPages
from backend.attention.base import AttentionBackend
from backend.cache import host_copies
from backend.cache.host_copies import HostCopies, grouped
from backend.cache.host_moves import Move, MoveList, Transfers
from backend.cache.host_pool import HostPool
from backend.cache.host_streams import ThreadCopies
from backend.cache.kv_pool import KVPool
from backend.transfer import Uploader

LAYERS = 3
DEVICE, HOST = 6, 5


def pages(*numbers):
    return np.array(numbers, np.int32)


@pytest.fixture
def gate():
    """Copies of a layer wait until it is opened."""
    events = [threading.Event() for _ in range(LAYERS)]
    yield events
    for event in events:
        event.set()


def make_pool(latent=None, dtype=torch.float32):
    pool = KVPool(
        num_layers=LAYERS, num_pages=DEVICE, page_size=2, kv_heads=1, head_dim=4,
        dtype=dtype, device=torch.device("cpu"), latent=latent,
    )  # fmt: skip
    for layer in range(LAYERS):
        for tensor in pool.storage(layer):
            tensor.copy_(torch.randn(tensor.shape))
    return pool


def gated(pool, gate):
    """Copies of ``pool`` that stop at each layer's gate."""
    host = HostPool(pool, HOST)
    layers = host.layers

    class Gated(list):
        def __getitem__(self, layer):
            gate[layer].wait(30)
            return super().__getitem__(layer)

    host.layers = Gated(layers)
    return HostCopies(pool, host)


def is_waiting(copies, layer):
    """Whether a step would wait for ``layer``."""
    thread = threading.Thread(target=copies.wait, args=(layer,), daemon=True)
    thread.start()
    thread.join(0.1)
    return thread.is_alive()


def test_a_step_waits_for_each_layer_when_it_comes_to_it(gate):
    pool = make_pool()
    copies = gated(pool, gate)
    wanted = [tensor[[3, 4]].clone() for tensor in pool.storage(1)]
    gate[0].set()
    copies.start(Transfers((Move(True, pages(3, 4), pages(1, 2)), Move(False, pages(5, 6), pages(1, 2))), fence=True))
    copies.wait(0)
    assert is_waiting(copies, 1)
    gate[1].set()
    copies.wait(1)
    for tensor, expected in zip(pool.storage(1), wanted, strict=True):
        assert torch.equal(tensor[[5, 6]], expected)
    assert is_waiting(copies, 2)


def test_a_step_that_touches_none_of_the_pages_waits_for_nobody(gate):
    copies = gated(make_pool(), gate)
    copies.start(Transfers((Move(True, pages(3), pages(1)),), fence=False))
    copies.wait_all()


def test_a_later_step_that_does_waits_for_earlier_copies_too(gate):
    copies = gated(make_pool(), gate)
    copies.start(Transfers((Move(True, pages(3), pages(1)),), fence=False))
    copies.start(Transfers((), fence=True))
    assert is_waiting(copies, 0)


def test_a_step_that_failed_half_way_leaves_the_waiting_to_the_next(gate):
    copies = gated(make_pool(), gate)
    gate[0].set()
    copies.start(Transfers((Move(False, pages(3), pages(1)),), fence=True))
    copies.wait(0)
    copies.wait(0)  # the next step
    assert is_waiting(copies, 1)


def test_a_copy_that_fails_fails_whoever_needs_it():
    def copy(layer):
        if layer == 1:
            raise RuntimeError("no such page")

    first, second, third = ThreadCopies().submit(copy, 3)
    first.wait()
    for arrival in (second, third):
        with pytest.raises(RuntimeError, match="no such page"):
            arrival.wait()


MOVE = st.tuples(st.booleans(), st.integers(1, DEVICE), st.integers(1, HOST))


@settings(max_examples=50, deadline=None)
@given(rounds=st.lists(st.lists(MOVE, max_size=6), max_size=4), latent=st.sampled_from([None, 3]))
def test_copies_are_made_in_the_order_in_which_they_were_asked_for(rounds, latent):
    pool = make_pool(latent)
    host = HostPool(pool, HOST)
    for layer in host.layers:
        for tensor in layer:
            tensor.zero_()
    copies = HostCopies(pool, host)
    expected_pool = [[tensor.clone() for tensor in pool.storage(layer)] for layer in range(LAYERS)]
    expected_host = [[tensor.clone() for tensor in layer] for layer in host.layers]
    for moves in rounds:
        copies.start(Transfers(tuple(Move(out, pages(device), pages(at)) for out, device, at in moves), fence=True))
        copies.wait_all()
        for mine, theirs in zip(expected_pool, expected_host, strict=True):
            for device_pages, host_pages in zip(mine, theirs, strict=True):
                for out, device, at in moves:
                    source, target = (device_pages[device], host_pages[at])[:: 1 if out else -1]
                    target.copy_(source)
    for layer in range(LAYERS):
        assert all(map(torch.equal, pool.storage(layer), expected_pool[layer]))
        assert all(map(torch.equal, host.layers[layer], expected_host[layer]))


def test_copies_of_one_direction_go_together_unless_they_write_the_same_page():
    save, other, again = (Move(True, pages(device), pages(host)) for device, host in ((1, 1), (2, 2), (3, 1)))
    load = Move(False, pages(4), pages(1))
    assert grouped([save, other, load, again]) == [[save, other], [load], [again]]
    assert grouped([save, other, again]) == [[save, other], [again]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_numbers_are_copied_too(dtype):
    pool = make_pool(dtype=dtype)
    copies = HostCopies(pool, HostPool(pool, HOST))
    copies.start(Transfers((Move(True, pages(2), pages(1)), Move(False, pages(4), pages(1))), fence=True))
    copies.wait_all()
    for layer in range(LAYERS):
        for tensor in pool.storage(layer):
            assert torch.equal(tensor[4].float(), tensor[2].float())


def test_memory_that_is_not_there_is_named_with_the_flag():
    with pytest.raises(MemoryError, match="no memory for 100000000000000 pages; lower --hicache-ratio"):
        HostPool(make_pool(), 10**14)


def test_nothing_to_copy_and_nothing_to_wait_for_is_nothing():
    moves = MoveList()
    assert moves.take() is None
    moves.reuse()
    assert moves.take() == Transfers((), fence=True)
    assert moves.take() is None


class Recorder(AttentionBackend):
    captures = True

    def __init__(self, log):
        self.log = log

    def plan(self, layout):
        self.log.append("plan")

    def plan_fixed(self, layout):
        self.log.append("plan_fixed")

    def attend(self, layer, query, key, value, sinks=None):
        self.log.append(f"attend {layer}")
        return query


class Waits:
    def __init__(self, log):
        self.log = log

    def wait(self, layer):
        self.log.append(f"wait {layer}")

    def wait_all(self):
        self.log.append("wait all")


def test_layers_wait_one_by_one_and_captured_steps_for_all():
    log = []
    attention = ArrivingPages(Recorder(log), Waits(log))
    assert attention.captures
    attention.plan(None)
    attention.attend(0, 1, 2, 3)
    attention.plan_fixed(None)
    assert log == ["plan", "wait 0", "attend 0", "wait all", "plan_fixed"]


class FusedRecorder(Recorder):
    """Lets layers store keys and values themselves."""

    def target(self, layer):
        self.log.append(f"target {layer}")

    def attend_stored(self, layer, query, key, value, sinks=None):
        self.log.append(f"attend stored {layer}")
        return query


def test_layers_that_store_themselves_wait_before_they_do():
    log = []
    attention = ArrivingPages(FusedRecorder(log), Waits(log))
    attention.target(2)
    attention.attend_stored(2, 1, 2, 3)
    assert log == ["wait 2", "target 2", "attend stored 2"]


def test_page_numbers_are_made_where_copies_run(monkeypatch):
    """On a GPU memory that was taken in the stream of the steps is the next step's once nobody holds it here."""
    inside, made = [], []

    class Stream(ThreadCopies):
        @contextlib.contextmanager
        def current(self):
            inside.append(True)
            yield
            inside.pop()

    class Upload(Uploader):
        def __call__(self, *arrays):
            made.append(bool(inside))
            return super().__call__(*arrays)

    monkeypatch.setattr(host_copies, "copy_stream", lambda _: Stream())
    monkeypatch.setattr(host_copies, "Uploader", Upload)
    pool = make_pool()
    copies = HostCopies(pool, HostPool(pool, HOST))
    copies.start(Transfers((Move(True, pages(1), pages(2)), Move(False, pages(3), pages(2))), fence=True))
    copies.wait_all()
    assert made == [True, True]
    assert torch.equal(pool.storage(0)[0][3], pool.storage(0)[0][1])
