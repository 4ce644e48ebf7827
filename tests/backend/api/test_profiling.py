"""Profiles over HTTP: what reaches the scheduler, and where a client may have files written."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.messages import ProfileCommand
from tests.backend.api.conftest import Backend


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGLANG_TORCH_PROFILER_DIR", str(tmp_path))
    return tmp_path


async def test_a_profile_is_begun_and_ended(backend: Backend, folder: Path) -> None:
    body = {"num_steps": 5, "activities": ["CPU"], "record_shapes": True, "output_dir": "deep/er", "with_stack": None}
    begun = await backend.http.post("/start_profile", json=body)
    assert begun.json() == {"message": "Recording a profile.", "folder": str(folder / "deep" / "er")}
    ended = await backend.http.post("/stop_profile")
    assert ended.json() == {"message": "The profile is complete.", "trace": "a.trace.json.gz"}
    command = ProfileCommand(str(folder / "deep" / "er"), 5, ["CPU"], record_shapes=True)
    assert backend.engine.profiles == [command, ProfileCommand()]


async def test_no_body_is_needed(backend: Backend, folder: Path) -> None:
    assert (await backend.http.post("/start_profile")).json()["folder"] == str(folder)
    assert backend.engine.profiles == [ProfileCommand(str(folder))]


async def test_what_the_scheduler_refuses_is_a_400(backend: Backend) -> None:
    answer = await backend.http.post("/stop_profile")
    assert (answer.status_code, "nothing to end" in answer.text) == (400, True)


@pytest.mark.parametrize("asked", ["..", "/etc", "a/../../b"])
async def test_files_go_below_the_operators_folder_only(backend: Backend, asked: str) -> None:
    answer = await backend.http.post("/start_profile", json={"output_dir": asked})
    assert answer.status_code == 400
    assert "output_dir" in answer.text
    assert backend.engine.profiles == []


@pytest.mark.parametrize("asked", ["a\0b", "x" * 300 + "/\0"])
async def test_a_folder_without_a_possible_name_is_named(backend: Backend, asked: str) -> None:
    answer = await backend.http.post("/start_profile", json={"output_dir": asked})
    assert (answer.status_code, "output_dir" in answer.text) == (400, True)


@pytest.mark.parametrize("asked", [-1, 2**31, 2**63])
async def test_a_wrong_number_of_steps_is_named(backend: Backend, asked: int) -> None:
    answer = await backend.http.post("/start_profile", json={"num_steps": asked})
    assert (answer.status_code, "num_steps" in answer.text) == (400, True)
