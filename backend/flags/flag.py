"""One row of the flag table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend.flags.checks import Check


class State(StrEnum):
    """What Warmlane does with a flag that it knows."""

    WORKS = "works"
    ACCEPTED = "accepted without effect"  # logged once, with the reason
    NOT_YET = "not yet"  # a value other than the default stops the start


class Kind(StrEnum):
    """How many words a flag takes and what they are."""

    INT = "int"
    FLOAT = "float"
    STR = "str"  # one of ``choices`` if there are any
    SWITCH = "switch"  # no word: True
    LIST = "list"  # words; the flag may be repeated and adds up
    GROUPS = "groups"  # words; each time the flag is given adds one list
    OPTIONAL = "optional"  # one word or none, which means ``bare``


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its spellings, its value and what becomes of it.

    Names are written with dashes; underscores are understood for each dash. ``off_names`` turn a switch off.
    """

    names: tuple[str, ...]
    kind: Kind = Kind.SWITCH
    default: Any = None  # a switch without one is False
    help: str = ""
    group: str = ""
    state: State = State.WORKS
    reason: str = ""  # why it has no effect, or what is missing
    sources: tuple[str, ...] = ("sglang",)  # who else knows it: sglang, sglang-router, vllm; warmlane: ours
    dest: str = ""  # the setting; from the first name when empty
    choices: tuple[str, ...] = ()
    check: Check | None = None
    harmless: tuple[Any, ...] = ()  # values of a "not yet" flag that ask for what happens anyway
    rename: Mapping[str, str] = field(default_factory=dict)  # other spellings of a value
    off_names: tuple[str, ...] = ()
    metavar: str = ""
    bare: Any = None

    def __post_init__(self) -> None:
        if not self.dest:
            object.__setattr__(self, "dest", setting_name(self.names[0]))
        if self.kind is Kind.SWITCH and self.default is None:
            object.__setattr__(self, "default", False)

    @property
    def spellings(self) -> tuple[str, ...]:
        return self.names + self.off_names


def setting_name(flag: str) -> str:
    """``--max-num-seqs``, ``max-num-seqs`` and ``max_num_seqs`` all name the setting ``max_num_seqs``."""
    return flag.lstrip("-").replace("-", "_")
