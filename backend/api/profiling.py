"""Traces of the scheduler's steps, begun and ended over HTTP."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import Field

from backend.api.context import CONTEXT
from backend.api.errors import SchemaError, json_response
from backend.api.schema import Body, parse_json
from backend.messages import ProfileCommand

FOLDER_VARIABLE = "SGLANG_TORCH_PROFILER_DIR"


class StartProfile(Body):
    output_dir: str = ""
    num_steps: Annotated[int, Field(ge=0, lt=2**31)] = 0
    activities: list[str] = []
    with_stack: bool = False
    record_shapes: bool = False


async def start_profile(request: web.Request) -> web.Response:
    """Begin a recording (see docs/api.md)."""
    body = StartProfile.read(parse_json(await request.read()) if request.can_read_body else {})
    command = ProfileCommand(
        folder=str(_folder(body.output_dir)),
        steps=body.num_steps,
        activities=body.activities,
        with_stack=body.with_stack,
        record_shapes=body.record_shapes,
    )
    folder = await request.app[CONTEXT].serving().frontend.profile(command)
    return json_response({"message": "Recording a profile.", "folder": folder})


async def stop_profile(request: web.Request) -> web.Response:
    """End the recording and save it."""
    trace = await request.app[CONTEXT].serving().frontend.profile(ProfileCommand())
    return json_response({"message": "The profile is complete.", "trace": trace})


def _folder(asked: str) -> Path:
    """Where traces go. A client chooses below the operator's folder only: it writes files with the server's rights."""
    base = Path(os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir()) / "warmlane-profiles").resolve()
    try:
        folder = (base / asked).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a null character, a link to itself
        raise SchemaError(f"output_dir {asked!r} is no folder: {error}", param="output_dir") from None
    if not folder.is_relative_to(base):
        message = f"output_dir {asked!r} is not below {base}; set {FOLDER_VARIABLE} to choose that."
        raise SchemaError(message, param="output_dir")
    return folder
