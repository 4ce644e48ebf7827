"""From words or YAML values to the value of a flag; every error is one sentence that names the flag and the value."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from typing import Any

from backend.flags.flag import Flag, Kind

_NUMBERS: dict[Kind, tuple[type, str]] = {Kind.INT: (int, "a whole number"), Kind.FLOAT: (float, "a number")}
_TYPES: dict[Kind, tuple[type | tuple[type, ...], str]] = {
    Kind.INT: (numbers.Integral, "a whole number"),
    Kind.FLOAT: (numbers.Real, "a number"),
    Kind.STR: ((str, os.PathLike), "a text"),
    Kind.SWITCH: (bool, "True or False"),
}


class FlagError(ValueError):
    """A command line or a configuration file that cannot be used."""


def from_words(flag: Flag, spelling: str, words: Sequence[str]) -> Any:
    """The value of ``flag`` for the words that followed it on the command line."""
    if flag.kind is Kind.SWITCH:
        return spelling not in flag.off_names
    if flag.kind in (Kind.LIST, Kind.GROUPS):
        return _checked(flag, spelling, list(words))
    if flag.kind is Kind.OPTIONAL and not words:
        return flag.bare
    return _checked(flag, spelling, _scalar(flag, spelling, words[0]))


def from_yaml(flag: Flag, spelling: str, value: Any) -> Any:
    """The value of ``flag`` for what a configuration file says. ``null`` means the default."""
    if value is None:
        return flag.default
    if flag.kind is Kind.SWITCH or (flag.kind is Kind.OPTIONAL and isinstance(value, bool)):
        return _switch_from_yaml(flag, spelling, value)
    if flag.kind is Kind.GROUPS:
        return [from_words(flag, spelling, [str(word) for word in _as_list(group)]) for group in _as_list(value)]
    if flag.kind is Kind.LIST:
        return from_words(flag, spelling, [str(word) for word in _as_list(value)])
    if isinstance(value, (bool, list, dict)):
        raise FlagError(f"{spelling} must be one value, got {value!r}")
    return from_words(flag, spelling, [str(value)])


def check_setting(flag: Flag, value: Any) -> None:
    """Raise :class:`FlagError`, with the setting's name, for a value given in code that the flag would refuse."""
    if value is None and flag.default is None:
        return
    kind, wanted = _TYPES.get(flag.kind, (object, "anything"))
    if not isinstance(value, kind) or (isinstance(value, bool) and flag.kind is not Kind.SWITCH):
        raise FlagError(f"{flag.dest} must be {wanted}, got {value!r}")
    if flag.choices and value not in flag.choices:
        raise FlagError(f"{flag.dest} must be one of {', '.join(flag.choices)}, got {value!r}")
    _checked(flag, flag.dest, value)


def _switch_from_yaml(flag: Flag, spelling: str, value: Any) -> Any:
    if not isinstance(value, bool):
        raise FlagError(f"{spelling} must be true or false, got {value!r}")
    if flag.kind is Kind.OPTIONAL:
        return flag.bare if value else flag.default
    return value != (spelling in flag.off_names)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _scalar(flag: Flag, spelling: str, word: str) -> Any:
    if flag.kind in _NUMBERS:
        convert, wanted = _NUMBERS[flag.kind]
        try:
            return convert(word)
        except ValueError:
            raise FlagError(f"{spelling} must be {wanted}, got {word!r}") from None
    word = flag.rename.get(word, word)
    if flag.choices and word not in flag.choices:
        raise FlagError(f"{spelling} must be one of {', '.join(flag.choices)}, got {word!r}")
    return word


def _checked(flag: Flag, spelling: str, value: Any) -> Any:
    if flag.check is not None and not flag.check.ok(value):
        raise FlagError(f"{spelling} must be {flag.check.wanted}, got {value!r}")
    return value
