"""The kernels run on the GPU where there is one, and under Triton's interpreter elsewhere (tests/conftest.py)."""

import importlib.util
from collections.abc import Iterator

import pytest
import torch

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run beside each other, and the interpreter is one thread anyway."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that torch gives without filling it is full of NaN, so that a number nobody wrote shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
