"""The rooms of the house: who may import whom, what stays light, and that no shipped configuration is untested."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT

ROOMS = ("policies", "router", "backend")
LEAVES = ("backend.prompt", "backend.flags")  # of the backend, without torch: the router may use them
LIGHT = ("backend", "backend.prompt", "backend.flags", "backend.flags.server", "policies", "router.launch_router")
MAY_IMPORT = {
    "policies": ("policies",),
    "router": ("router", "policies", *LEAVES),
    "backend": ("backend",),
    "backend.prompt": ("backend.prompt",),
    "backend.flags": ("backend.flags", "backend.config"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that the file imports, also inside functions."""
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in (*ROOMS, "benchmarks", "tests"))


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_downwards(room: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources()
        if within(module_name(path), (room,))
        for name in imported(path)
        if not within(name, MAY_IMPORT[room])
    ]
    assert wrong == []


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr or f"{module} loads torch"


def test_every_shipped_configuration_is_named_in_a_test() -> None:
    shipped = [path for folder in ("configs", "nginx") for path in (ROOT / folder).rglob("*") if path.is_file()]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert shipped
    assert [path.name for path in shipped if f'"{path.name}"' not in tests and f"/{path.name}" not in tests] == []
