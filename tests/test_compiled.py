"""What `make compiled` takes; whether the compiled router behaves is for `make test-compiled`."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
# Their classes read annotations, or are no objects of Python's own: compiled they are other classes or none.
NOT_COMPILED = {"Struct", "BaseModel", "Collector", "Transport"}


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_router", ROOT / ".ci" / "compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bases(path: Path) -> set[str]:
    """The last names of what classes derive from."""
    classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    return {ast.unparse(base).rpartition(".")[2] for each in classes for base in each.bases}


def test_what_is_compiled_has_only_classes_that_can_be(program):
    taken = {module: bases(ROOT / module) & NOT_COMPILED for module in program.MODULES}
    assert taken
    assert {module: found for module, found in taken.items() if found} == {}
    assert len(set(program.MODULES)) == len(program.MODULES)


def test_a_build_is_of_its_sources(program, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "ROOT", tmp_path)
    for package in program.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "one.py").write_text("x = 1\n")
    before = program.sources()
    assert program.sources() == before
    (tmp_path / "router" / "one.py").write_text("x = 2\n")
    assert program.sources() != before


def classes(path: Path) -> dict[str, set[str]]:
    """The classes of a module, each with the last names of what it derives from."""
    nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    return {node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases} for node in nodes}


def test_what_is_not_compiled_derives_only_from_classes_that_allow_it(program):
    compiled = {name for module in program.MODULES for name in classes(ROOT / module)}
    others = [
        path
        for package in program.PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if str(path.relative_to(ROOT)) not in program.MODULES
    ]
    derived = {base for path in others for found in classes(path).values() for base in found & compiled}
    opened = {name for names in program.DERIVED_FROM.values() for name in names}
    assert derived == opened
    for module, names in program.DERIVED_FROM.items():
        source = program.opened((ROOT / module).read_text(), names)
        assert source.count(program.OPEN) == len(names)
        compile(source, module, "exec")


def test_nothing_compiled_waits_in_an_except_block(program):
    """There the exception would stay the current one, also for what runs meanwhile."""
    waits = [
        f"{module}:{inner.lineno}"
        for module in program.MODULES
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.ExceptHandler)
        for inner in ast.walk(node)
        if isinstance(inner, ast.Await | ast.Yield)
    ]
    assert waits == []
