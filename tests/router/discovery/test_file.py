"""Workers from a file that changes under the router."""

from __future__ import annotations

import asyncio

import pytest

from router.fleet.discovery.file import FileSource, WorkerFileError, parse_workers
from router.fleet.discovery.membership import Membership
from router.fleet.registry import Registry


def urls(registry: Registry) -> list[str]:
    return [worker.url for worker in registry.all()]


@pytest.mark.parametrize(
    "content",
    [
        "- a:1\n- url: http://b:2\n  model_id: m\n",
        "workers:\n  - a:1\n  - {url: 'b:2', model_id: m}\n",
        '["a:1", {"url": "b:2", "model_id": "m"}]',
    ],
)
def test_yaml_and_json_lists_are_understood(content):
    first, second = parse_workers("f", content.encode())
    assert (first.url, second.url, second.model_id) == ("http://a:1", "http://b:2", "m")


@pytest.mark.parametrize("content", ["", "[]", "workers:\n"])
def test_no_worker_is_a_list_too(content):
    assert parse_workers("f", content.encode()) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- {", "not valid YAML or JSON in line"),
        (b"\xff\xfe\x00", "not valid"),
        (b"- 2024-13-45", "not valid YAML or JSON"),
        (b"[" * 5000, "not valid YAML or JSON"),
        (b"5", "a list of workers, got a int"),
        (b"workers: x", "a list of workers, got a str"),
        (b"- a:1\n- grpc://b:1", "worker 2: url: worker 'grpc://b:1' must be"),
        (b"- {url: 'a:1', speed: 3}", "worker 1: speed"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content, said):
    with pytest.raises(WorkerFileError, match=said):
        parse_workers("f", content)


def test_a_missing_file_stops_the_start(tmp_path):
    with pytest.raises(WorkerFileError, match="cannot be read: No such file"):
        FileSource(str(tmp_path / "none"), Membership(Registry(), "file")).start()


async def test_changes_are_followed_and_a_broken_file_changes_nothing(tmp_path, caplog):
    file, registry = tmp_path / "workers.yaml", Registry()
    file.write_text("[a:1, b:1]")
    source = FileSource(str(file), Membership(registry, "file"), look_seconds=0.001)
    source.start()
    try:
        assert urls(registry) == ["http://a:1", "http://b:1"]
        for content, expected in [("[b:1, c:1]", ["http://b:1", "http://c:1"]), ("[", None), ("[c:1]", ["http://c:1"])]:
            file.write_text(content)
            async with asyncio.timeout(10):
                while expected and urls(registry) != expected:  # noqa: ASYNC110 - the file has no events
                    await asyncio.sleep(0.001)
        file.write_text("")  # as it is for a moment when it is written anew
        source.look()
        file.write_text("{")
        source.look()
        source.look()
        file.unlink()
        source.look()
        assert urls(registry) == ["http://c:1"]
        assert sum("not valid YAML" in record.message for record in caplog.records) >= 1
        assert sum("cannot be read" in record.message for record in caplog.records) == 1
    finally:
        source.close()


def test_half_a_file_is_waited_for(tmp_path):
    file, registry = tmp_path / "workers.yaml", Registry()
    source = FileSource(str(file), Membership(registry, "file"))
    file.write_text("- a:1\n- b:1\n")
    source.look()
    source.look()
    assert urls(registry) == ["http://a:1", "http://b:1"]
    for content in ("- a:1\n", "- a:1\n- b:1\n- c:1\n"):
        file.write_text(content)
        source.look()
        assert urls(registry) == ["http://a:1", "http://b:1"]
    source.look()
    assert urls(registry) == ["http://a:1", "http://b:1", "http://c:1"]


def test_a_worker_whose_limit_cannot_be_kept_changes_nothing(tmp_path, caplog):
    file, registry = tmp_path / "workers.yaml", Registry(processes=3)
    source = FileSource(str(file), Membership(registry, "file"))
    for content in ("[a:1]", "[{url: 'a:1', max_concurrent_requests: 2}, b:1]"):
        file.write_text(content)
        source.look()
        source.look()
        assert urls(registry) == ["http://a:1"]
    assert "max_concurrent_requests: 2 cannot be divided among --workers 3 processes" in caplog.text
