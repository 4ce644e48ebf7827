"""What a chat costs before the model sees it: rendering and tokenising, beside ``tokenizers`` alone on the same text.

    python -m benchmarks.chat_prompt [--tokens 4096] [--model-path PATH]

The conversation has turns of a few hundred tokens. Both are timed in turns, in CPU seconds; the figure is the median of
the ratios. A part of the difference is the copy of the ids into a list, which the scheduler's message needs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import tokenizers

from backend.frontend.intake import ChatPrompt, Intake, Limits
from backend.prompt import load_prompt, resolve_model

AIM = 1.2
PROSE = Path(__file__).parents[1] / "ARCHITECTURE.md"
TURN_CHARACTERS = 1200


def conversation(count: Callable[[list[dict[str, str]]], int], tokens: int) -> list[dict[str, str]]:
    """Turns of prose until the prompt has about ``tokens`` tokens."""
    prose = PROSE.read_text(encoding="utf-8")
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    while count(messages) < tokens:
        number = len(messages)
        begin = number * TURN_CHARACTERS % (len(prose) - TURN_CHARACTERS)
        text = f"{number}: {prose[begin : begin + TURN_CHARACTERS]}"
        messages.append({"role": "user" if number % 2 else "assistant", "content": text})
    return messages


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--model-path", default=None)
    parser.add_argument("--rounds", type=int, default=41)
    args = parser.parse_args()
    assets = load_prompt(resolve_model(args.model_path, only="prompt"))
    template = assets.require_template()
    intake = Intake(assets.tokenizer, template, Limits(1 << 20, assets.tokenizer.vocab_size))
    messages = conversation(lambda chat: len(intake.tokenize(ChatPrompt(chat))), args.tokens)
    text = template.render(messages)
    alone = tokenizers.Tokenizer.from_str(assets.tokenizer.to_json())
    ids = intake.tokenize(ChatPrompt(messages))
    same = ids == alone.encode(text, add_special_tokens=False).ids
    ratios, ours, theirs = [], [], []
    for _ in range(args.rounds):
        ours.append(cpu_seconds(lambda: intake.tokenize(ChatPrompt(messages))))
        theirs.append(cpu_seconds(lambda: alone.encode(text, add_special_tokens=False)))
        ratios.append(ours[-1] / theirs[-1])
    rendering = statistics.median(cpu_seconds(lambda: template.render(messages)) for _ in range(args.rounds))
    print(f"{len(ids)} tokens in {len(messages)} messages, ids {'equal' if same else 'DIFFERENT'}")
    print(f"render and tokenise: {statistics.median(ours) * 1000:.2f} ms, of it rendering {rendering * 1000:.2f} ms")
    print(f"tokenizers alone: {statistics.median(theirs) * 1000:.2f} ms")
    print(f"ratio {statistics.median(ratios):.2f} (aim {AIM})")


if __name__ == "__main__":
    main()
