"""Tensors are copied by several threads; a failure in one of them is the caller's."""

import pytest
import torch

from backend.loader.copies import Copies


@pytest.mark.parametrize("threads", [1, 3])
def test_everything_has_arrived_behind_the_block(threads):
    sources = [torch.full((5, i + 1), float(i)) for i in range(40)]
    places = [torch.zeros(5, i + 1, dtype=torch.bfloat16 if i % 2 else torch.float32) for i in range(40)]
    with Copies(threads) as copies:
        for place, source in zip(places, sources, strict=True):
            copies.copy(place, source)
    assert all(torch.equal(place.float(), source) for place, source in zip(places, sources, strict=True))


def test_parts_of_a_tensor_are_filled():
    whole = torch.zeros(6, 4)
    with Copies(2) as copies:
        for i, rows in enumerate(whole.split(2)):
            copies.copy(rows, torch.full((2, 4), float(i)))
        copies.copy(whole[:, :1].transpose(0, 1), torch.full((1, 6), 9.0))
    assert whole[:, 1].tolist() == [0, 0, 1, 1, 2, 2]
    assert whole[:, 0].tolist() == [9.0] * 6


def test_a_failed_copy_is_raised():
    with pytest.raises(RuntimeError, match="size"), Copies(2) as copies:
        copies.copy(torch.zeros(3), torch.zeros(4))


def failing(times):
    with Copies(1) as copies:
        for _ in range(times):
            copies.copy(torch.zeros(3), torch.zeros(4))
        raise KeyError("the caller's own")


def test_more_failures_than_room_do_not_block_and_the_callers_own_comes_first():
    with pytest.raises(KeyError):
        failing(times=10)
