"""Real chat templates: our rendering beside that of ``transformers``.

    python -m benchmarks.templates --data DIR

``DIR`` holds templates (``*.jinja``), as files or inside archives (``*.tar.gz``), at any depth; they stay there. Each
is rendered with and without a generation prompt: a plain conversation, one with a system message, one with tools, one
with a tool's result, and one with reasoning. Equal also counts where both refuse. The last column is the tool's result
as OpenAI's clients send it (arguments as text, content null): it has to equal what ``transformers`` renders of one of
the forms that templates are written for (arguments as object or text; content absent, null or empty), and one that
shows the call where any does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from backend.prompt import ChatTemplate, TemplateError

SPECIAL_TOKENS = {"bos_token": "<BOS>", "eos_token": "<EOS>", "pad_token": "<PAD>", "unk_token": "<UNK>"}
CALL_ID = "call12345"  # nine letters and digits, as Mistral's templates demand
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a "city" <now> & later: é 日 🙂',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name."},
                "days": {"type": "integer", "default": 1},
                "units": {"type": "string", "enum": ["C", "F"]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
ARGUMENTS = {"city": "Oslo", "days": 3, "tags": ["a", "é"], "units": "C"}
ARGUMENTS_TEXT = json.dumps(ARGUMENTS, ensure_ascii=False)
SYSTEM = {"role": "system", "content": "You are terse.\n"}
USER = {"role": "user", "content": "What's 2+2? <b>é 日 🙂 & 'q'"}
ANSWER = {"role": "assistant", "content": "It is 4."}
RESULT = {"role": "tool", "tool_call_id": CALL_ID, "name": "get_weather", "content": '{"sky": "clear"}'}
CONTENTS: tuple[dict[str, Any], ...] = ({}, {"content": None}, {"content": ""})

Chat = list[dict[str, Any]]
Render = Callable[[Chat, dict[str, Any]], str]


def tool_turn(message: dict[str, Any], arguments: Any) -> Chat:
    """A question, an assistant's ``message`` with a call, and the result."""
    function = {"name": "get_weather", "arguments": arguments}
    call = {"id": CALL_ID, "type": "function", "function": function}
    return [USER, {"role": "assistant", **message, "tool_calls": [call]}, RESULT]


WITH_CALL = {"content": "One moment."}
# The forms of each conversation, and options: what transformers refuses in one form, it may render in the next.
CONVERSATIONS: dict[str, tuple[list[Chat], dict[str, Any]]] = {
    "plain": ([[USER, ANSWER, USER]], {}),
    "system": ([[SYSTEM, USER, ANSWER, USER]], {}),
    "tools": ([[SYSTEM, USER]], {"tools": [TOOL]}),
    "tool result": ([tool_turn(WITH_CALL, each) for each in (ARGUMENTS, ARGUMENTS_TEXT)], {"tools": [TOOL]}),
    "reasoning": ([[USER, {**ANSWER, "reasoning_content": "Two and two."}, USER]], {"enable_thinking": False}),
}
CLIENTS_TURN = "clients' tool result"
COLUMNS = (*CONVERSATIONS, CLIENTS_TURN)


def read_templates(folder: Path) -> dict[str, str]:
    """The templates below ``folder`` by name."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in folder.rglob("*.jinja")}
    for archive in folder.rglob("*.tar.gz"):
        found |= dict(_archived(archive))
    return dict(sorted(found.items()))


def _archived(archive: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(archive) as files:
        for member in files:
            content = files.extractfile(member) if member.name.endswith(".jinja") else None
            if content is not None:
                yield Path(member.name).stem, content.read().decode()


def check(template: str) -> dict[str, str]:
    """What differs, by column; empty where nothing does."""
    try:
        ours = ChatTemplate(template, SPECIAL_TOKENS)
    except TemplateError as error:
        return dict.fromkeys(COLUMNS, f"is not read: {error}")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(models.BPE()), chat_template=template, **SPECIAL_TOKENS
    )

    def reference(chat: Chat, options: dict[str, Any]) -> str:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, **options))

    differing = {kind: compare(ours, reference, *conversation) for kind, conversation in CONVERSATIONS.items()}
    return differing | {CLIENTS_TURN: compare_clients_turn(ours, template)}


def compare(ours: ChatTemplate, reference: Render, forms: list[Chat], options: dict[str, Any]) -> str:
    """Empty when both render the same or both refuse."""
    for prompted in (True, False):
        asked = {**options, "add_generation_prompt": prompted}
        outcomes = [attempt(lambda asked=asked, chat=chat: reference(chat, asked)) for chat in forms]
        expected = next((outcome for outcome in outcomes if isinstance(outcome, str)), outcomes[0])
        got = attempt(lambda asked=asked: ours.render(forms[0], **asked))
        if isinstance(expected, str) and isinstance(got, str):
            if got != expected:
                return f"with add_generation_prompt={prompted}: {first_difference(got, expected)}"
        elif isinstance(expected, str) or isinstance(got, str):
            return f"with add_generation_prompt={prompted}: ours {_told(got)}, theirs {_told(expected)}"
    return ""


def compare_clients_turn(ours: ChatTemplate, template: str) -> str:
    """Empty when our rendering is one of the best that ``transformers`` gives, or both refuse."""
    options: dict[str, Any] = {"tools": [TOOL], "add_generation_prompt": True}

    def reference(chat: Chat) -> str:  # as apply_chat_template, which would drop the nulls
        return str(render_jinja_template([chat], chat_template=template, **options, **SPECIAL_TOKENS)[0][0])

    got = attempt(lambda: ours.render(tool_turn({"content": None}, ARGUMENTS_TEXT), **options))
    forms = [tool_turn(content, each) for each, content in product((ARGUMENTS, ARGUMENTS_TEXT), CONTENTS)]
    texts = [text for chat in forms if isinstance(text := attempt(lambda chat=chat: reference(chat)), str)]
    best = [text for text in texts if "Oslo" in text and '\\"days' not in text and "None" not in text] or texts
    if not best or isinstance(got, Exception):
        return "" if not best and isinstance(got, Exception) else f"ours {_told(got)}, theirs renders {len(best)} forms"
    return "" if got in best else first_difference(got, best[0])


def attempt(render: Callable[[], str]) -> str | Exception:
    try:
        return render()
    except Exception as error:  # a template is a program of its own: anything can go wrong inside
        return error


def _told(outcome: str | Exception) -> str:
    return "renders" if isinstance(outcome, str) else f"refuses ({str(outcome)[:80]})"


def first_difference(got: str, expected: str, around: int = 30) -> str:
    """Both texts around the first place where they differ."""
    places = (i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b)
    place = next(places, min(len(got), len(expected)))
    begin = max(0, place - around)
    return f"{got[begin : place + around]!r} instead of {expected[begin : place + around]!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with templates")
    arguments = parser.parse_args()
    templates = read_templates(arguments.data)
    if not templates:
        sys.exit(f"{arguments.data} holds no *.jinja, neither as files nor in *.tar.gz")
    equal = dict.fromkeys(COLUMNS, 0)
    for name, template in templates.items():
        differing = check(template)
        print(f"{'DIFFERS' if any(differing.values()) else 'equal  '} {name}")
        for kind, what in differing.items():
            equal[kind] += not what
            if what:
                print(f"    {kind}: {what}")
    print("\n| | " + " | ".join(COLUMNS) + " |\n|---|" + "---|" * len(COLUMNS))
    print(f"| equal of {len(templates)} | " + " | ".join(map(str, equal.values())) + " |")
    if any(count < len(templates) for count in equal.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
