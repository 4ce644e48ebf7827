"""Traces of steps: torch's, for Perfetto and chrome://tracing, or NVTX ranges for Nsight Systems."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.autograd.profiler import emit_nvtx
from torch.profiler import ProfilerActivity, profile

from backend.messages import ProfileCommand

logger = logging.getLogger(__name__)

ACTIVITIES = ("CPU", "GPU", "NVTX")


class Recording(ABC):
    """Begun and ended where the steps run: torch records one thread."""

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def end(self) -> None: ...

    @abstractmethod
    def save(self) -> str:
        """Where it is, for people. After :meth:`end`."""


class TorchTrace(Recording):
    def __init__(self, command: ProfileCommand, activities: Sequence[str]) -> None:
        kinds = {"CPU": ProfilerActivity.CPU, "GPU": ProfilerActivity.CUDA}
        self._folder = Path(command.folder)
        self._profile = profile(
            activities=[kinds[name] for name in activities],
            record_shapes=command.record_shapes,
            with_stack=command.with_stack,
        )

    def begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._profile.start()

    def end(self) -> None:
        self._profile.stop()

    def save(self) -> str:
        path = self._folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.trace.json.gz"
        self._profile.export_chrome_trace(str(path))
        return str(path)


class NvtxRanges(Recording):
    """For ``nsys profile --capture-range=cudaProfilerApi``, which keeps what it sees."""

    def __init__(self, command: ProfileCommand) -> None:
        self._ranges = emit_nvtx(record_shapes=command.record_shapes)

    def begin(self) -> None:
        torch.cuda.profiler.start()
        self._ranges.__enter__()

    def end(self) -> None:
        self._ranges.__exit__(None, None, None)
        torch.cuda.profiler.stop()

    def save(self) -> str:
        return "NVTX ranges, in the report of nsys"


class Profiler:
    """At most one recording at a time."""

    def __init__(
        self, device: torch.device, run: Callable[[Callable[[], None]], None], label: Callable[[bool], None]
    ) -> None:
        """``run`` calls what it gets where steps run, behind those that were launched. ``label(True)`` names steps."""
        self._device, self._run, self._label = device, run, label
        self._recording: Recording | None = None
        self._steps_left = 0

    def answer(self, command: ProfileCommand) -> tuple[bool, str]:
        """Begin a recording in the command's folder, or end the one under way where it names none.

        Returns whether that was done, and where the recording goes or is, or what was wrong.
        """
        try:
            return True, self._begin(command) if command.folder else self._end()
        except (ValueError, OSError, RuntimeError) as error:
            return False, str(error)

    def stepped(self) -> None:
        """A step was taken: a recording of a number of steps ends with the last."""
        if self._recording is None or not self._steps_left:
            return
        self._steps_left -= 1
        if not self._steps_left:
            done, said = self.answer(ProfileCommand())
            logger.log(logging.INFO if done else logging.ERROR, "profile: %s", said)

    def _begin(self, command: ProfileCommand) -> str:
        if self._recording is not None:
            raise ValueError("a profile is being recorded already; end it with /stop_profile")
        recording = self._recording_of(command)
        self._run(recording.begin)
        self._recording, self._steps_left = recording, command.steps
        self._label(True)
        return command.folder

    def _end(self) -> str:
        recording, self._recording = self._recording, None
        if recording is None:
            raise ValueError("no profile is being recorded; begin one with /start_profile")
        self._label(False)
        self._run(recording.end)
        return recording.save()

    def _recording_of(self, command: ProfileCommand) -> Recording:
        has_gpu = self._device.type == "cuda"
        names = command.activities or (["CPU", "GPU"] if has_gpu else ["CPU"])
        for name in names:
            if name not in ACTIVITIES:
                raise ValueError(f"activities: {name!r} is unknown; known: {', '.join(ACTIVITIES)}")
            if name != "CPU" and not has_gpu:
                raise ValueError(f"activities: {name} needs a GPU, and the model runs on the CPU")
        if "NVTX" in names:
            if len(names) > 1:
                raise ValueError("activities: NVTX stands alone")
            return NvtxRanges(command)
        return TorchTrace(command, names)
