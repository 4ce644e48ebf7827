"""Benchmarks name the interpreter that they ran on."""

from __future__ import annotations

import platform

import pytest

from benchmarks import interpreter


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ("'--prefix=/usr/local' '--enable-optimizations' '--with-lto'", ("PGO", "LTO")),
        ("'--enable-shared' '--with-lto=thin'", ("LTO",)),
        ("'--enable-shared' '--without-ensurepip'", ()),
    ],
)
def test_how_an_interpreter_was_built(arguments, known):
    assert interpreter.optimised(arguments) == known


def test_the_one_that_runs_is_named():
    said = str(interpreter.this())
    assert platform.python_version() in said
    assert platform.python_compiler() in said
