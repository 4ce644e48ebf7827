"""The check of chat templates finds what differs, in files and in archives."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from backend.prompt import ChatTemplate
from benchmarks.templates import COLUMNS, check, read_templates
from tests.backend.prompt.conversations import TEMPLATES
from tests.backend.prompt.tiny import CHATML


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"sandbox", "attribute of a class"}))
def test_own_templates_are_equal(name: str) -> None:
    assert check(TEMPLATES[name]) == dict.fromkeys(COLUMNS, "")


def test_a_difference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    render = ChatTemplate.render
    monkeypatch.setattr(ChatTemplate, "render", lambda *args, **options: render(*args, **options) + "!")
    told = check(CHATML)
    assert all("instead of" in each for each in told.values())


def test_a_template_that_only_one_of_both_takes_differs() -> None:
    told = check("{% if messages[0].role == 'system' %}{% for x in %}{% endif %}")
    assert set(told) == set(COLUMNS)
    assert all("is not read" in each for each in told.values())


def test_files_and_archives_are_found(tmp_path: Path) -> None:
    (tmp_path / "one.jinja").write_text("1")
    (tmp_path / "two.jinja").write_text("2")
    with tarfile.open(tmp_path / "more.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "two.jinja", "inner/three.jinja")
    assert read_templates(tmp_path) == {"one": "1", "three": "2", "two": "2"}
