"""The hot path of the router as machine code: ``make compiled``, which needs a C compiler.

Both packages are copied to ``build/compiled`` and mypyc (https://mypyc.readthedocs.io) compiles the modules below in
the copy; nothing else changes, and a checkout without the copy runs the same sources. Use it by its path::

    PYTHONPATH=build/compiled .venv/bin/launch_router ...

``--check`` says whether the copy is of the sources as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build" / "compiled"
STAMP = "sources.sha256"
PACKAGES = ("router", "policies")  # backend stays where it is

# Every module that a request passes; those with msgspec's or pydantic's classes stay as they are, since these read
# annotations when they are made, and so do subclasses of prometheus_client's.
MODULES = """
policies/policy.py policies/cache_aware.py
policies/prefix/node.py policies/prefix/text_tree.py policies/prefix/restart.py policies/prefix/rendezvous.py
policies/prefix/ends.py policies/prefix/fullest.py
policies/cost/leases.py policies/cost/rates.py policies/cost/line.py policies/cost/score.py policies/cost/fleet_view.py
policies/cost/traffic.py policies/cost/reuse.py policies/cost/pressure.py policies/cost/gate.py
router/http/message.py router/http/repeated.py router/http/deadline.py router/http/intake.py router/http/response.py
router/http/answer.py router/http/client.py router/http/pool.py router/http/server.py
router/front.py router/gateway.py router/exchange.py router/straight.py router/relay.py router/upstream.py
router/body.py router/conversation.py router/prompt_text.py router/headers.py router/answer_tail.py
router/placement.py router/rosters.py router/exact.py router/dossier.py router/pending.py router/explain.py
router/shortfall.py router/metrics.py router/silence.py router/guards.py router/breaker.py router/retry_budget.py
router/inflight.py router/fleet/registry.py
""".split()

# What the modules import of others is taken as it comes: reading all of torch would take minutes.
SETTINGS = """[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-backend.*,torch.*,transformers.*,pydantic.*,numpy.*,aiohttp.*,prometheus_client.*,kubernetes.*,uvloop.*,zmq.*]
follow_imports = skip
"""


def sources() -> str:
    """A digest of everything that is copied."""
    digest = hashlib.sha256("\0".join(MODULES).encode())
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def build() -> int:
    """The exit status of the compiler."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, TARGET / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (TARGET / "backend").symlink_to(ROOT / "backend")
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
