import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cache import PADDING_PAGE, PageAllocator


@given(st.lists(st.integers(0, 12), max_size=40), st.randoms(use_true_random=False))
def test_pages_are_out_once_and_come_back(sizes, random):
    allocator, out = PageAllocator(20), []
    for size in sizes:
        if size <= allocator.free_pages:
            out.append(allocator.alloc(size))
        elif out:
            allocator.release(out.pop(random.randrange(len(out))))
        held = np.concatenate([*out, allocator.free_list()])
        assert sorted(held) == list(range(1, 21))
        assert PADDING_PAGE not in held


def test_asking_for_too_much_is_an_error():
    with pytest.raises(MemoryError, match="3 pages wanted, 2 free"):
        PageAllocator(2).alloc(3)


def test_releasing_more_than_is_out_is_an_error():
    allocator = PageAllocator(2)
    with pytest.raises(ValueError, match="1 pages released, but only 0 are out"):
        allocator.release(np.array([1], np.int32))
