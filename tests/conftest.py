"""What every test shares: the ``program`` marker for tests that need an installed program; Triton without a GPU."""

import os
from pathlib import Path

import pytest

from tests.programs import find_program

REQUIRE = "WARMLANE_REQUIRE_PROGRAMS"  # set to 1 where a missing program is a failure, not a reason to skip

if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: its kernels run on the CPU then


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("program"):
        name, apt = marker.args
        if find_program(name) is None:
            message = f"{name} is missing: apt-get install {apt}"
            if os.environ.get(REQUIRE) == "1":
                pytest.fail(message, pytrace=False)
            pytest.skip(message)
