"""The flags of ``launch_server``: what works, and what SGLang and vLLM users also type.

A flag is *accepted* when answers, formats and protection are the same without it, and *not yet* when it asks for
something that Warmlane does not do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backend.config import ServerArgs
from backend.flags.flag import Flag
from backend.flags.parser import parse
from backend.flags.server.features import FEATURES
from backend.flags.server.kernels import KERNELS
from backend.flags.server.model import MODEL
from backend.flags.server.observability import OBSERVABILITY
from backend.flags.server.parallel import PARALLEL
from backend.flags.server.scheduling import SCHEDULING
from backend.flags.server.serving import SERVING
from backend.flags.server.settings import SETTINGS
from backend.flags.server.vllm import VLLM

DESCRIPTION = "Serve one model on one GPU or on the CPU, over SGLang's native and OpenAI's HTTP interface."

SERVER_FLAGS: tuple[Flag, ...] = (
    SETTINGS + MODEL + SERVING + SCHEDULING + KERNELS + PARALLEL + FEATURES + OBSERVABILITY + VLLM
)


class ServerCommand(NamedTuple):
    """What a command line asks for, and what to log once about flags without effect."""

    args: ServerArgs
    accepted: list[str]


def parse_server_args(argv: Sequence[str], prog: str = "launch_server") -> ServerCommand:
    """The settings that ``argv`` asks for; on an error print one line and exit with status 2."""
    parsed = parse(SERVER_FLAGS, argv, prog, DESCRIPTION)
    settings = {row.dest: parsed.values[row.dest] for row in SETTINGS}
    return ServerCommand(ServerArgs(**settings), parsed.accepted)
