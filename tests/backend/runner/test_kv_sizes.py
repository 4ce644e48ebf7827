"""How memory is split between layers that see everything and layers that see a window."""

from hypothesis import given
from hypothesis import strategies as st

from backend.runner.kv_sizes import Demand, KVBytes, KVSizes, largest, sizes_for
from backend.scheduler.window import WindowSettings

GIB = 1 << 30
DEMANDS = st.builds(
    Demand, st.integers(1, 300), st.integers(1, 4000), st.sampled_from([16, 512, 8192]), st.sampled_from([1, 16, 64])
)
EACH = st.builds(KVBytes, st.sampled_from([0, 7, 4096]), st.sampled_from([5, 2048, 65536]))
WINDOW = st.none() | st.integers(1, 5000)
RATIO = st.none() | st.floats(0.01, 1.0)


@given(st.integers(0, 1 << 32), EACH, WINDOW, RATIO, DEMANDS)
def test_pools_fit_and_are_large_enough(room, each, window, ratio, demand):
    sizes = largest(room, each, window, ratio, demand)
    assert sizes.bytes(each, demand.page) <= room
    assert 0 <= sizes.tokens <= demand.rows * demand.context
    if window is None:
        assert sizes.window is None
    if sizes.window is not None:
        assert sizes.window.num_pages < sizes.tokens // demand.page
        assert sizes.window.num_pages >= WindowSettings.least_pages(window, demand.step_tokens, demand.page)


@given(st.integers(0, 1 << 32), EACH, st.integers(1, 5000), DEMANDS)
def test_pages_apart_never_hold_less(room, each, window, demand):
    together = largest(room, each, None, None, demand).tokens
    assert largest(room, each, window, None, demand).tokens >= together - 1


def test_alternating_layers_hold_nearly_twice_as_much():
    demand = Demand(rows=256, context=131072, step_tokens=8192, page=16)
    sizes = largest(100 * GIB, KVBytes(24576, 24576), 128, None, demand)
    together = largest(100 * GIB, KVBytes(24576, 24576), None, None, demand)
    assert sizes.tokens / together.tokens > 1.8
    assert sizes.window.long_rows(16) >= 256


def test_a_window_on_every_layer_needs_no_more_than_the_rows_hold():
    demand = Demand(rows=8, context=32768, step_tokens=512, page=16)
    sizes = largest(16 * GIB, KVBytes(0, 131072), 4096, None, demand)
    assert sizes.tokens == 8 * 32768
    assert sizes.window.long_rows(16) >= 8
    assert sizes.bytes(KVBytes(0, 131072), 16) <= 16 * GIB


def test_what_is_left_keeps_cached_prefixes():
    demand = Demand(rows=2, context=10_000, step_tokens=512, page=16)
    each = KVBytes(1000, 1000)
    assert largest(GIB, each, 128, None, demand) == KVSizes(20_000)  # room for everything
    some = largest(30_000_000, each, 128, None, demand)
    assert some.tokens == 20_000
    assert some.window.num_pages == 10_000 // 16


def test_a_given_ratio_is_kept():
    demand = Demand(rows=64, context=1000, step_tokens=64, page=16)
    assert sizes_for(8000, 32, 0.25, demand).window.num_pages == 2000 // 16
    assert sizes_for(8000, 32, 1.0, demand).window is None
    assert sizes_for(8000, 4000, 0.25, demand).window is None  # not even one row would fit
