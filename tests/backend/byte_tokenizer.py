"""A tokenizer and a chat template that a test can compute in its head: one token is one byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OFFSET = 10  # smaller ids are special and have no text
BOS, EOS = 1, 2


class ByteTokenizer:
    """Token id = byte + OFFSET."""

    eos_token_ids = (EOS,)
    bos_token_id = BOS

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [byte + OFFSET for byte in text.encode()]

    def encode_pair(self, first: str, second: str) -> list[int]:
        return self.encode(f"{first}|{second}")

    def token_to_id(self, token: str) -> int | None:
        return token.encode()[0] + OFFSET if len(token.encode()) == 1 else None

    def decode(
        self, token_ids: Sequence[int], skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True
    ) -> str:
        pieces = []
        for token in token_ids:
            if token >= OFFSET:
                pieces.append(bytes([(token - OFFSET) % 256]))
            elif not skip_special_tokens:
                pieces.append(f"<{token}>".encode())
        return b"".join(pieces).decode(errors="replace")


class PlainTemplate:
    """``role: content`` lines, then ``assistant: ``."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        if "refuse" in kwargs:
            raise ValueError("this template refuses everything")
        lines = [f"{message['role']}: {_text(message.get('content'))}" for message in messages]
        if continue_final_message:
            return "\n".join(lines)
        return "\n".join([*lines, "assistant: "] if add_generation_prompt else lines)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())
