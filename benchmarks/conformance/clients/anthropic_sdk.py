"""Anthropic's SDK against ``/v1/messages``."""

from __future__ import annotations

from typing import Any

import anthropic
from cases import arguments, check, run_all, version

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "name": "weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
    },
}


class Contract:
    def __init__(self, url: str, model: str) -> None:
        self.model = model
        self.client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)

    def ask(self, **more: Any) -> Any:
        """Greedily: this SDK passes no temperature by itself."""
        asked = {"model": self.model, "messages": PARIS, "max_tokens": 16, "extra_body": {"temperature": 0}, **more}
        return self.client.messages.create(**asked)

    def whole(self) -> None:
        answer = self.ask()
        check("Paris" in answer.content[0].text and answer.usage.input_tokens > 0, f"Paris, got {answer.content}")

    def system(self) -> None:
        check(bool(self.ask(system="You answer in one word.").content), "an answer under a system text")

    def stream(self) -> None:
        with self.client.messages.stream(
            model=self.model, messages=PARIS, max_tokens=16, extra_body={"temperature": 0}
        ) as stream:
            text = "".join(stream.text_stream)
        check(text == self.ask().content[0].text, "the stream's text to equal the whole answer's")

    def tools(self) -> None:
        asked = [{"role": "user", "content": "What is the weather in Paris?"}]
        choice = {"type": "tool", "name": "weather"}
        answer = self.ask(messages=asked, max_tokens=64, tools=[WEATHER], tool_choice=choice)
        calls = [block for block in answer.content if block.type == "tool_use"]
        check(bool(calls) and "city" in calls[0].input, f"a call, got {answer.content}")

    def count_tokens(self) -> None:
        counted = self.client.messages.count_tokens(model=self.model, messages=PARIS).input_tokens
        used = self.ask().usage
        check(counted == used.input_tokens + (used.cache_read_input_tokens or 0), "as many tokens as an answer counts")

    def bad_value(self) -> None:
        try:
            self.ask(max_tokens=0)
        except anthropic.BadRequestError as error:
            check("max_tokens" in str(error), f"max_tokens in the error, got {error}")
            return
        raise AssertionError("a BadRequestError about max_tokens")


def main() -> None:
    args = arguments()
    version(anthropic.__version__)
    contract = Contract(args.url, args.model)
    names = [name for name in vars(Contract) if not name.startswith("_") and name != "ask"]
    run_all({name: getattr(contract, name) for name in names})


if __name__ == "__main__":
    main()
