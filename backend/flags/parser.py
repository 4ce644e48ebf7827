"""The command line of a table of rows: argparse splits it, the table says what each flag means."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from backend.flags.config_file import read_config
from backend.flags.flag import Flag, Kind, State, setting_name
from backend.flags.helptext import help_text
from backend.flags.values import FlagError, from_words, from_yaml
from backend.flags.version import PACKAGE, installed_version

CONFIG = "--config"
_WORDS: dict[Kind, int | str] = {Kind.SWITCH: 0, Kind.LIST: "*", Kind.GROUPS: "+", Kind.OPTIONAL: "?"}


@dataclass(frozen=True, slots=True)
class ParsedFlags:
    """``values``: every setting by name. ``given``: those that the user set. ``accepted``: lines to log once."""

    values: dict[str, Any]
    given: frozenset[str]
    accepted: list[str]


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    spelling: str


class FlagParser(argparse.ArgumentParser):
    """An argument parser over a table. Use :func:`build_parser`."""

    def __init__(self, prog: str, description: str, rows: Sequence[Flag]) -> None:
        super().__init__(prog=prog, description=description, add_help=False, allow_abbrev=False)
        self.rows = tuple(rows)
        self._by_setting: dict[str, Flag] = {}
        for row in self.rows:
            self._add(row)
        self.add_argument(CONFIG, nargs=1, dest=CONFIG, default=None)
        self.add_argument("-h", "--help", action=_PrintHelp)
        self.add_argument("--help-all", action=_PrintHelp)
        self.add_argument("--version", action=_PrintVersion)

    def _add(self, row: Flag) -> None:
        self.add_argument(*row.spellings, nargs=_WORDS.get(row.kind), dest=row.dest, action=_Record, flag=row)
        for name in row.spellings:
            self._by_setting[setting_name(name)] = row

    def format_help(self) -> str:
        return self.help_for(everything=False)

    def help_for(self, everything: bool) -> str:
        """``--help`` (what works) or ``--help-all`` (also what is only known)."""
        return help_text(self.prog, self.description or "", self.rows, everything)

    def error(self, message: str) -> NoReturn:
        """One line on stderr, exit status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def parse_rows(self, argv: Sequence[str]) -> ParsedFlags:
        """Parse ``argv`` and the file that ``--config`` names. Raises :class:`FlagError`."""
        words = [_with_dashes(word) for word in argv]
        namespace, unknown = self.parse_known_args(words)
        if unknown:
            raise FlagError(self._explain_unknown(unknown[0]))
        config = getattr(namespace, CONFIG)
        given = self._from_file(config[0]) if config else {}
        for row in self.rows:
            if isinstance(found := getattr(namespace, row.dest, None), _Given):
                given[row.dest] = found
        return self._settle(given)

    def _from_file(self, path: str) -> dict[str, _Given]:
        given: dict[str, _Given] = {}
        for key, value in read_config(path).items():
            row = self._by_setting.get(setting_name(key))
            if row is None:
                raise FlagError(f"{path}: unknown key {key!r}{self._nearest(key)}")
            spelling = next(name for name in row.spellings if setting_name(name) == setting_name(key))
            try:
                given[row.dest] = _Given(from_yaml(row, spelling, value), spelling)
            except FlagError as error:
                raise FlagError(f"{path}: {error}") from None
        return given

    def _settle(self, given: dict[str, _Given]) -> ParsedFlags:
        values: dict[str, Any] = {}
        accepted: list[str] = []
        for row in self.rows:
            found = given.get(row.dest)
            values[row.dest] = row.default if found is None else found.value
            if found is None or found.value == row.default or found.value in row.harmless:
                continue
            if row.state is State.NOT_YET:
                raise FlagError(_not_yet(row, found))
            if row.state is State.ACCEPTED:
                accepted.append(f"{found.spelling} is accepted without effect: {row.reason}")
        return ParsedFlags(values, frozenset(given), accepted)

    def _explain_unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"unexpected word {word!r}; flags start with --"
        return f"unknown flag {word.split('=')[0]}{self._nearest(word.split('=')[0])}"

    def _nearest(self, word: str) -> str:
        known = [*self._by_setting, setting_name(CONFIG)]
        wanted = setting_name(word)
        begins = sorted((name for name in known if name.startswith(wanted)), key=len)
        near = begins[:1] or difflib.get_close_matches(wanted, known, n=1)
        dashes = "--" if word.startswith("-") else ""
        return f"; did you mean {dashes}{near[0].replace('_', '-' if dashes else '_')}?" if near else ""


class _Record(argparse.Action):
    """Stores the value of a row and the spelling that was used."""

    def __init__(self, option_strings: Sequence[str], dest: str, flag: Flag, nargs: int | str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=nargs, default=argparse.SUPPRESS)
        self.flag = flag

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, spelling: str | None = None
    ) -> None:
        name = spelling or self.flag.names[0]
        words = values if isinstance(values, list) else [] if values is None else [values]
        try:
            value = from_words(self.flag, name, words)
        except FlagError as error:
            parser.error(str(error))
        earlier = getattr(namespace, self.dest, None)
        before = earlier.value if isinstance(earlier, _Given) else []
        if self.flag.kind is Kind.LIST:
            value = [*before, *value]
        elif self.flag.kind is Kind.GROUPS:
            value = [*before, value]
        setattr(namespace, self.dest, _Given(value, name))


class _PrintHelp(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, spelling: str | None = None
    ) -> None:
        if isinstance(parser, FlagParser):
            sys.stdout.write(parser.help_for(everything=spelling == "--help-all"))
        parser.exit()


class _PrintVersion(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, spelling: str | None = None
    ) -> None:
        sys.stdout.write(f"{PACKAGE} {installed_version()}\n")
        parser.exit()


def build_parser(prog: str, description: str, rows: Iterable[Flag]) -> FlagParser:
    """A parser for ``rows``; it also knows ``--config``, ``--help``, ``--help-all`` and ``--version``."""
    return FlagParser(prog, description, tuple(rows))


def parse(rows: Iterable[Flag], argv: Sequence[str], prog: str, description: str = "") -> ParsedFlags:
    """Parse a command line; on an error print one line and exit with status 2."""
    parser = build_parser(prog, description, rows)
    try:
        return parser.parse_rows(argv)
    except FlagError as error:
        parser.error(str(error))


def _with_dashes(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


_SECRET = ("password", "-url", "api-key")  # in names of flags whose values belong into no log


def _not_yet(row: Flag, found: _Given) -> str:
    silent = isinstance(found.value, bool) or any(word in found.spelling for word in _SECRET)
    value = "" if silent else f" {_shown(found.value)}"
    why = f" ({row.reason})" if row.reason else ""
    return f"{found.spelling}{value} is not supported yet{why}; leave it out"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
