"""A step that fails: told by its result, wherever it ran."""

import pytest
import torch

from backend.runner.stream import CudaStream, step_stream
from backend.scheduler.batch import DeviceLost
from tests.backend.scheduler.harness import Harness


def broken():
    raise ValueError("no such expert")


@pytest.mark.parametrize("overlap", [True, False])
def test_what_a_step_raises_comes_with_its_result(overlap):
    stream = step_stream(torch.device("cpu"), overlap=overlap)
    failed, good = stream.submit(broken), stream.submit(lambda: 3)
    with pytest.raises(ValueError, match="expert"):
        failed.result()
    assert good.result() == 3


class Event:
    lost = False

    def record(self):
        pass

    def synchronize(self):
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.fixture
def gpu(monkeypatch):
    """A stream of a GPU that is not there."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: torch.inference_mode())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    return CudaStream(torch.device("cuda"))


def test_memory_that_is_missing_on_a_gpu_costs_one_step(gpu):
    def large():
        raise torch.OutOfMemoryError("no")

    failed, good = gpu.submit(large), gpu.submit(lambda: 3)
    with pytest.raises(torch.OutOfMemoryError):
        failed.result()
    assert good.result() == 3


def test_a_gpu_that_failed_is_lost(gpu, monkeypatch):
    landing = gpu.submit(lambda: 3)
    monkeypatch.setattr(Event, "lost", True)
    with pytest.raises(DeviceLost):
        landing.result()


@pytest.mark.parametrize("overlap", [True, False])
def test_a_scheduler_whose_device_is_lost_ends(overlap):
    harness = Harness(overlap=overlap)
    harness.add([1, 2, 3])

    def lost():
        raise DeviceLost("gone")

    launch = harness.runner.launch

    def launch_broken(batch, slots):
        step = launch(batch, slots)
        step.tokens = lost
        return step

    harness.runner.launch = launch_broken
    with pytest.raises(DeviceLost):
        harness.run()
