"""How data processes are started."""

from __future__ import annotations

from router.processes import keeper


def test_another_router_in_the_working_directory_is_not_taken(tmp_path, monkeypatch):
    (tmp_path / "router").mkdir()
    monkeypatch.chdir(tmp_path)
    assert keeper._import_flags() == ["-P"]
    monkeypatch.chdir(keeper.HOME)
    assert keeper._import_flags() == []
