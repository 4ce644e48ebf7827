"""The fields of a body that placement reads."""

from __future__ import annotations

from typing import Any

import msgspec

ABSENT = msgspec.Raw()


class Envelope(msgspec.Struct, gc=False):
    """The fields that placement reads; the rest of the body is only checked to be JSON."""

    model: Any = None
    stream: Any = None
    messages: Any = None  # read by all that have it: decoded in the same pass
    tools: msgspec.Raw = ABSENT
    system: msgspec.Raw = ABSENT
    instructions: msgspec.Raw = ABSENT
    prompt: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT
    input_ids: msgspec.Raw = ABSENT
    chat_template_kwargs: msgspec.Raw = ABSENT
    continue_final_message: Any = None
    lora_path: Any = None
    cache_salt: Any = None
    extra_key: Any = None
    routing_key: Any = None
    session_id: Any = None


DECODER = msgspec.json.Decoder(Envelope)
