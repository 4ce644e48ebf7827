"""The hot path of the router as machine code: ``make compiled``, which needs a C compiler.

Both packages are copied to ``build/compiled`` and mypyc (https://mypyc.readthedocs.io) compiles the modules below in
the copy; nothing else changes, and a checkout without the copy runs the same sources. Use it by its path::

    PYTHONPATH=build/compiled .venv/bin/launch_router ...

``--check`` says whether the copy is of the sources as they are.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "compiled"
STAMP = "sources.sha256"
PACKAGES = ("router", "policies")  # backend stays where it is

# Every module that a request passes; those with msgspec's or pydantic's classes stay as they are, since these read
# annotations when they are made, and so do subclasses of prometheus_client's.
COMPILED = {
    "policies": ("policy", "cache_aware"),
    "policies/prefix": ("node", "text_tree", "restart", "rendezvous", "ends", "fullest"),
    "policies/cost": (
        "leases", "rates", "line", "felt", "score", "fleet_view", "traffic", "reuse", "pressure", "gate",
    ),
    "router/http": (
        "message", "rush", "lull", "repeated", "deadline", "intake", "response", "answer", "client", "pool", "server",
    ),
    "router/fleet": ("registry",),
    "router": (
        "front", "gateway", "exchange", "straight", "relay", "upstream", "body", "long_strings", "conversation",
        "prompt_text", "headers", "answer_tail", "placement", "rosters", "exact", "dossier", "pending", "explain",
        "shortfall", "metrics", "tally", "silence", "guards", "breaker", "retry_budget", "inflight",
    ),
}  # fmt: skip
MODULES = [f"{folder}/{name}.py" for folder, names in COMPILED.items() for name in names]
# Classes of these modules that others derive from which stay as they are: mypyc has to be told.
DERIVED_FROM = {
    "policies/policy.py": ("Policy",),
    "policies/cost/leases.py": ("Lease", "LeaseBook"),
    "router/breaker.py": ("Breaker",),
    "router/guards.py": ("Guards",),
}
# Classes made for every request. What a dataclass is made by is written when the module is read, and would not be
# compiled: in the copy they are plain classes, without what else a dataclass has (equality, ``replace``).
SPELLED_OUT = {
    "policies/policy.py": ("RouteRequest",),
    "policies/prefix/restart.py": ("Sent",),
    "policies/prefix/text_tree.py": ("Found",),
    "router/body.py": ("Facts",),
    "router/dossier.py": ("Dossier", "Attempt"),
    "router/silence.py": ("Wait",),
    "router/upstream.py": ("Outgoing",),
}
OPEN = "@mypyc_attr(allow_interpreted_subclasses=True)"
FUTURE = "from __future__ import annotations\n"
_NONE = ast.Constant(None)

# What the modules import of others is taken as it comes: reading all of torch would take minutes.
SETTINGS = """[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-backend.*,torch.*,transformers.*,pydantic.*,numpy.*,aiohttp.*,prometheus_client.*,kubernetes.*,uvloop.*,zmq.*]
follow_imports = skip
"""


def sources() -> str:
    """A digest of everything that is copied, and of what it is compiled for."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(str(sysconfig.get_config_var("SOABI")).encode())
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def opened(source: str, names: Iterable[str]) -> str:
    """``source``, whose classes ``names`` may be derived from by classes that are not compiled."""
    source = source.replace(FUTURE, f"{FUTURE}\nfrom mypy_extensions import mypyc_attr\n", 1)
    for name in names:
        source = re.sub(rf"^class {name}\b", f"{OPEN}\nclass {name}", source, flags=re.MULTILINE)
    return source


def spelled_out(source: str, names: Iterable[str]) -> str:
    """``source``, whose dataclasses ``names`` are plain classes with an ``__init__`` that does what theirs would."""
    lines = source.splitlines()
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    for node in sorted((classes[name] for name in names), key=lambda node: node.lineno, reverse=True):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        lines[fields[0].lineno - 1 : fields[-1].end_lineno] = _init(fields)
        del lines[node.decorator_list[0].lineno - 1]
    return "\n".join(lines) + "\n"


def _init(fields: Sequence[ast.AnnAssign]) -> list[str]:
    """The lines of an ``__init__``. A default that a factory makes stands for an argument of None."""
    arguments, declared, assignments = ["self"], [], []
    for field in fields:
        name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        declared.append(f"    {name}: {kind}")
        value, given = name, field.value
        if isinstance(given, ast.Call) and ast.unparse(given.func) == "field":
            (factory,) = [keyword.value for keyword in given.keywords if keyword.arg == "default_factory"]
            value, kind, given = f"{ast.unparse(factory)}() if {name} is None else {name}", f"{kind} | None", _NONE
        arguments.append(f"{name}: {kind}" + ("" if given is None else f" = {ast.unparse(given)}"))
        assignments.append(f"        self.{name} = {value}")
    return [*declared, "", f"    def __init__({', '.join(arguments)}) -> None:", *assignments]


def build() -> int:
    """The exit status of the compiler."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, TARGET / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (TARGET / "backend").symlink_to(ROOT / "backend")
    for module, names in DERIVED_FROM.items():
        path = TARGET / module
        path.write_text(opened(path.read_text(), names))
    for module, names in SPELLED_OUT.items():
        path = TARGET / module
        path.write_text(spelled_out(path.read_text(), names))
    settings = TARGET / "mypy.ini"
    settings.write_text(SETTINGS)
    command = [sys.executable, "-m", "mypyc", f"--config-file={settings}", *MODULES]
    built = subprocess.run(command, cwd=TARGET, env={**os.environ, "MYPYC_OPT_LEVEL": "2"}, check=False)
    if built.returncode == 0:
        (TARGET / STAMP).write_text(sources())
        shutil.rmtree(TARGET / "build")
    return built.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="build nothing; exit with 1 unless the copy is up to date")
    stamp = TARGET / STAMP
    current = stamp.is_file() and stamp.read_text() == sources()
    if parser.parse_args().check or current:
        return 0 if current else 1
    return build()


if __name__ == "__main__":
    sys.exit(main())
