"""The mechanism: spellings, states, values, configuration files, errors."""

import importlib.metadata

import pytest

from backend.flags import (
    AT_LEAST_ONE,
    PORT,
    Flag,
    accepted,
    build_parser,
    groups,
    integer,
    not_yet,
    number,
    parse,
    switch,
    text,
    words,
    works,
)
from backend.flags.flag import Kind

ROWS = (
    *works(
        "server",
        integer("--port", default=8000, check=PORT, help="where"),
        text("--policy", default="warm", choices=("warm", "cold"), rename={"hot": "warm"}),
        words("--worker-urls", "--hosts"),
        groups("--prefill"),
        number("--mem-fraction"),
        switch("--disable-cache", off_names=("--enable-cache",)),
        Flag(("--checksum",), Kind.OPTIONAL, bare="all", help="h", group="server"),
    ),
    *accepted("old", "nothing to tune", integer("--splits", default=8, check=AT_LEAST_ONE), switch("--metrics")),
    *not_yet("later", "one GPU", integer("--tp-size", "--tp", default=1), text("--quant", harmless=("none",))),
)


def run(*argv):
    return parse(ROWS, argv, "prog")


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("prog: error: ")
    assert error.count("\n") == 1
    return error


def test_defaults():
    parsed = run()
    assert parsed.values["port"] == 8000
    assert parsed.values["worker_urls"] == []
    assert parsed.values["disable_cache"] is False
    assert parsed.given == frozenset()
    assert parsed.accepted == []


@pytest.mark.parametrize("argv", [("--mem-fraction", ".5"), ("--mem_fraction", ".5"), ("--mem_fraction=.5",)])
def test_dashes_and_underscores_are_the_same(argv):
    parsed = run(*argv)
    assert parsed.values["mem_fraction"] == 0.5
    assert parsed.given == {"mem_fraction"}


def test_underscores_in_a_value_stay():
    assert run("--worker-urls", "a_b", "--hosts", "c", "d").values["worker_urls"] == ["a_b", "c", "d"]


def test_groups_keep_what_belongs_together():
    assert run("--prefill", "u1", "9000", "--prefill", "u2").values["prefill"] == [["u1", "9000"], ["u2"]]


def test_an_optional_word():
    assert run("--checksum").values["checksum"] == "all"
    assert run("--checksum", "x").values["checksum"] == "x"


def test_off_names_win_when_they_come_last():
    assert run("--disable-cache").values["disable_cache"] is True
    assert run("--disable-cache", "--enable-cache").values["disable_cache"] is False


def test_another_spelling_of_a_value():
    assert run("--policy", "hot").values["policy"] == "warm"


def test_accepted_is_told_once_with_the_spelling_and_the_reason():
    assert run("--splits", "4", "--splits", "5").accepted == ["--splits is accepted without effect: nothing to tune"]
    assert run("--splits", "8").accepted == []


def test_not_yet_accepts_the_default_and_harmless_values():
    assert run("--tp", "1", "--quant", "none").accepted == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--tp", "4"), ["--tp 4", "not supported yet", "one GPU"]),
        (("--tp_size=2",), ["--tp-size 2", "not supported yet"]),
        (("--port", "70000"), ["--port", "0", "65535", "70000"]),
        (("--port", "x"), ["--port", "whole number", "'x'"]),
        (("--mem-fraction", "x"), ["--mem-fraction", "number", "'x'"]),
        (("--splits", "0"), ["--splits", "at least 1", "0"]),
        (("--policy", "luke"), ["--policy", "warm, cold", "'luke'"]),
        (("--prot", "1"), ["unknown flag --prot", "--port"]),
        (("--mem", "1"), ["unknown flag --mem", "--mem-fraction"]),
        (("--xyzzy",), ["unknown flag --xyzzy"]),
        (("stray",), ["'stray'"]),
        (("--port",), ["--port", "expected one argument"]),
        (("--config", "/nowhere/x.yaml"), ["/nowhere/x.yaml", "No such file"]),
    ],
)
def test_errors_are_one_line_that_says_what_is_wrong(capsys, argv, words):
    error = refused(capsys, *argv)
    for word in words:
        assert word in error


def config(tmp_path, content):
    path = tmp_path / "prog.yaml"
    path.write_text(content)
    return str(path)


def test_a_file_holds_the_same_names(tmp_path):
    path = config(
        tmp_path,
        "port: 9\n--mem-fraction: 0.5\nworker_urls: [a, b]\nprefill: [[u, 1], [v]]\nenable-cache: false\n"
        "checksum: true\npolicy: null\nmetrics: true\n",
    )
    parsed = run("--config", path)
    assert parsed.values["port"] == 9
    assert parsed.values["mem_fraction"] == 0.5
    assert parsed.values["worker_urls"] == ["a", "b"]
    assert parsed.values["prefill"] == [["u", "1"], ["v"]]
    assert parsed.values["disable_cache"] is True
    assert parsed.values["checksum"] == "all"
    assert parsed.values["policy"] == "warm"
    assert parsed.accepted == ["--metrics is accepted without effect: nothing to tune"]


def test_the_command_line_wins_over_the_file(tmp_path):
    path = config(tmp_path, "port: 9\nhosts: [a]\n")
    parsed = run("--port", "8000", "--worker-urls", "b", "--config", path)
    assert parsed.values["port"] == 8000
    assert parsed.values["worker_urls"] == ["b"]


def test_an_empty_file_is_no_error(tmp_path):
    assert run("--config", config(tmp_path, "")).given == frozenset()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("prot: 1", ["unknown key 'prot'", "port"]),
        ("port: true", ["--port", "one value", "True"]),
        ("port: nine", ["--port", "whole number", "'nine'"]),
        ("disable-cache: 1", ["--disable-cache", "true or false", "1"]),
        ("tp: 2", ["--tp 2", "not supported yet"]),
        ("- port", ["map", "list"]),
        ("port: [", ["not valid YAML", "line"]),
    ],
)
def test_a_wrong_file_is_refused_by_name(capsys, tmp_path, content, words):
    error = refused(capsys, "--config", config(tmp_path, content))
    for word in words:
        assert word in error


def test_help_shows_what_works_and_help_all_the_rest(capsys):
    with pytest.raises(SystemExit) as stop:
        run("--help")
    assert stop.value.code == 0
    short = capsys.readouterr().out
    assert "--port N" in short
    assert "(default 8000)" in short
    assert "--tp-size" not in short
    with pytest.raises(SystemExit):
        run("--help-all")
    everything = capsys.readouterr().out
    assert "one GPU: --tp-size, --quant" in everything
    assert max(map(len, everything.splitlines())) <= 110


def test_the_parser_is_usable_without_parse():
    assert build_parser("prog", "text", ROWS).parse_rows(["--port", "1"]).values["port"] == 1


def test_the_version_is_looked_up_only_when_it_is_asked_for(capsys, monkeypatch):
    """A tree that is not installed starts, and has none to tell."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    told = []
    for lookup in (lambda name: "1.2", missing):
        monkeypatch.setattr(importlib.metadata, "version", lookup)
        assert run("--port", "1").values["port"] == 1
        with pytest.raises(SystemExit) as stop:
            run("--version")
        assert stop.value.code == 0
        told.append(capsys.readouterr().out)
    assert told == ["warmlane 1.2\n", "warmlane unknown\n"]
