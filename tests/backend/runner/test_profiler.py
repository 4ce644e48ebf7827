"""Profiles of a small model's steps on the CPU, whose steps run in a thread of their own."""

import gzip
import json
from pathlib import Path

import pytest

from backend.config import ServerArgs
from backend.core import build_core
from backend.messages import NewRequest, ProfileCommand, ToScheduler
from backend.prompt import resolve_model
from backend.sampling_params import SamplingParams
from tests.backend.tiny_models import write_model


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    folder = write_model("llama", tmp_path_factory.mktemp("llama"))
    args = ServerArgs(
        model_path=folder,
        device="cpu",
        dtype="float32",
        skip_tokenizer_init=True,
        cpu_threads=1,
        page_size=4,
        max_total_tokens=256,
    )
    return build_core(args, resolve_model(folder))


def generate(core, uids, tokens=4):
    sampling = SamplingParams(max_new_tokens=tokens, temperature=0, ignore_eos=True)
    prompt = bytes(4 * [5, 0, 0, 0])
    core.scheduler.receive(ToScheduler(new=[NewRequest(uid, prompt, sampling, []) for uid in uids]))
    steps = 0
    while core.scheduler.has_work:
        core.scheduler.step()
        core.profiler.stepped()
        steps += 1
    return steps


def names(path):
    with gzip.open(path) as file:
        return [event.get("name", "") for event in json.load(file)["traceEvents"]]


def test_a_trace_names_steps_and_operations(core, tmp_path):
    generate(core, [1])
    assert core.profiler.answer(ProfileCommand(str(tmp_path / "deep"))) == (True, str(tmp_path / "deep"))
    generate(core, [2, 3])
    done, path = core.profiler.answer(ProfileCommand())
    found = names(path)
    assert done
    assert "step of 2 rows, 2 tokens" in found
    assert "aten::mm" in found or "aten::linear" in found
    generate(core, [4])
    assert list((tmp_path / "deep").iterdir()) == [Path(path)]


def test_a_profile_ends_by_itself_after_its_steps(core, tmp_path):
    core.profiler.answer(ProfileCommand(str(tmp_path), steps=2))
    assert generate(core, [11], tokens=9) > 4
    (path,) = tmp_path.iterdir()
    assert 0 < sum(name.startswith("step of") for name in names(path)) < 4
    assert core.profiler.answer(ProfileCommand())[0] is False


def test_what_cannot_be_is_told(core, tmp_path):
    folder = str(tmp_path)
    for activities, told in ((["GPU"], "needs a GPU"), (["NVTX"], "needs a GPU"), (["DISK"], "'DISK' is unknown")):
        done, said = core.profiler.answer(ProfileCommand(folder, activities=activities))
        assert (done, told in said) == (False, True)
    assert core.profiler.answer(ProfileCommand())[1].startswith("no profile is being recorded")
    assert core.profiler.answer(ProfileCommand(folder))[0]
    assert core.profiler.answer(ProfileCommand(folder))[1].startswith("a profile is being recorded already")
    assert core.profiler.answer(ProfileCommand())[0]


def test_a_folder_that_cannot_be_made_is_told(core, tmp_path):
    (tmp_path / "file").touch()
    done, said = core.profiler.answer(ProfileCommand(str(tmp_path / "file" / "x")))
    assert (done, str(tmp_path) in said) == (False, True)
    assert core.profiler.answer(ProfileCommand())[1].startswith("no profile is being recorded")
