"""The openai SDK against every route that it has a method for, and SGLang's routes through its ``post``."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import openai
from cases import arguments, check, run_all, version

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "born": {"type": "integer"}},
    "required": ["name", "born"],
    "additionalProperties": False,
}
WEATHER = {
    "name": "weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]},
}


class Contract:
    """One method for each thing that clients rely on."""

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)

    def chat(self, **more: Any) -> Any:
        asked = {"model": self.model, "messages": PARIS, "temperature": 0, "max_tokens": 16, **more}
        return self.client.chat.completions.create(**asked)

    def complete(self, **more: Any) -> Any:
        asked = {"model": self.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, **more}
        return self.client.completions.create(**asked)

    def refused(self, ask: Callable[[], object], kind: type[openai.APIStatusError], word: str) -> None:
        """``ask`` must raise an error of this kind that names ``word``."""
        try:
            ask()
        except kind as error:
            check(word in str(error), f"{word!r} in the error, got {error}")
            return
        raise AssertionError(f"a {kind.__name__} about {word!r}, got an answer")

    # -- models

    def models_list(self) -> None:
        check(self.model in [each.id for each in self.client.models.list()], f"{self.model} among the models")

    def models_retrieve(self) -> None:
        check(self.client.models.retrieve(self.model).object == "model", "a model card")

    def models_unknown(self) -> None:
        self.refused(lambda: self.client.models.retrieve("nobody/knows"), openai.NotFoundError, "nobody/knows")

    # -- chat

    def chat_whole(self) -> None:
        answer = self.chat()
        check("Paris" in answer.choices[0].message.content, f"Paris, got {answer.choices[0].message.content!r}")
        used = answer.usage
        check(used.total_tokens == used.prompt_tokens + used.completion_tokens, "usage that adds up")

    def chat_stream(self) -> None:
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        check(text == self.chat().choices[0].message.content, "the stream's text to equal the whole answer's")
        check(chunks[0].choices[0].delta.role == "assistant", "the role in the first chunk")
        check(chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, "usage in the last chunk")

    def chat_parts(self) -> None:
        parts = [{"type": "text", "text": PARIS[0]["content"]}]
        answer = self.chat(messages=[{"role": "user", "content": parts}])
        check("Paris" in answer.choices[0].message.content, "content parts to be read as text")

    def chat_n(self) -> None:
        answer = self.chat(n=3, temperature=1.0, seed=7)
        check([choice.index for choice in answer.choices] == [0, 1, 2], "three answers, numbered")

    def chat_seed(self) -> None:
        first, second = (self.chat(temperature=1.0, seed=11).choices[0].message.content for _ in range(2))
        check(first == second, "equal answers for equal seeds")

    def chat_logprobs(self) -> None:
        places = self.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
        check(all(len(place.top_logprobs) == 3 for place in places), "three likeliest tokens at each place")
        check(places[0].logprob == places[0].top_logprobs[0].logprob, "greedy tokens to be the likeliest")

    def chat_stop(self) -> None:
        choice = self.chat(stop=["Paris"]).choices[0]
        check(choice.finish_reason == "stop" and "Paris" not in choice.message.content, "an answer cut before Paris")

    def chat_length(self) -> None:
        check(self.chat(max_tokens=2).choices[0].finish_reason == "length", "finish_reason length")

    def chat_logit_bias(self) -> None:
        usual = (
            self.chat(max_tokens=1, logprobs=True, extra_body={"return_token_ids": False}).choices[0].message.content
        )
        ids = self.post("/tokenize", prompt=usual, add_special_tokens=False)["tokens"]
        biased = self.chat(max_tokens=1, logit_bias={str(ids[0]): -100}).choices[0].message.content
        check(biased != usual, f"another first token than {usual!r}")

    def chat_json_schema(self) -> None:
        form = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
        answer = self.chat(messages=[{"role": "user", "content": "Who was Ada?"}], max_tokens=64, response_format=form)
        person = json.loads(answer.choices[0].message.content)
        check(isinstance(person["born"], int), f"a person, got {person}")

    def chat_json_object(self) -> None:
        asked = [{"role": "user", "content": "A JSON object with one short field about Paris, please."}]
        answer = self.chat(messages=asked, max_tokens=200, response_format={"type": "json_object"})
        if answer.choices[0].finish_reason != "length":
            check(isinstance(json.loads(answer.choices[0].message.content), dict), "a JSON object")

    def chat_tool_call(self) -> None:
        call = self._weather().choices[0].message.tool_calls[0]
        check(call.function.name == "weather" and "city" in json.loads(call.function.arguments), f"a call, got {call}")

    def chat_tool_stream(self) -> None:
        arguments = ""
        for chunk in self._weather(stream=True):
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                arguments += call.function.arguments or ""
        check("city" in json.loads(arguments), f"arguments in pieces, got {arguments!r}")

    def _weather(self, **more: Any) -> Any:
        tools = [{"type": "function", "function": WEATHER}]
        asked = [{"role": "user", "content": "What is the weather in Paris?"}]
        choice = {"type": "function", "function": {"name": "weather"}}
        return self.chat(messages=asked, max_tokens=64, tools=tools, tool_choice=choice, **more)

    def chat_tool_result(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
        said = [
            {"role": "user", "content": "What is the weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"},
        ]
        check(bool(self.chat(messages=said).choices[0].finish_reason), "an answer behind a tool's result")

    def chat_bad_value(self) -> None:
        self.refused(lambda: self.chat(temperature=-1), openai.BadRequestError, "temperature")

    def chat_bad_type(self) -> None:
        self.refused(lambda: self.chat(messages="hello"), openai.BadRequestError, "messages")

    def chat_too_long(self) -> None:
        long = [{"role": "user", "content": "word " * 40_000}]
        self.refused(lambda: self.chat(messages=long), openai.BadRequestError, "context length")

    def chat_left(self) -> None:
        """A client that leaves in mid-stream costs the next one nothing."""
        stream = self.chat(stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.chat_whole()

    def chat_many(self) -> None:
        """Sixteen at once: all of them answered, each with its own words."""

        async def ask() -> list[str]:
            async with openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", timeout=120) as client:
                asked = [
                    client.completions.create(model=self.model, prompt=f"{i}, {i + 1},", max_tokens=4, temperature=0)
                    for i in range(100, 116)
                ]
                return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

        check(len(set(asyncio.run(ask()))) > 8, "answers that differ with their prompts")

    # -- completions

    def completions_whole(self) -> None:
        answer = self.complete()
        check("Paris" in answer.choices[0].text and answer.object == "text_completion", "Paris")

    def completions_stream(self) -> None:
        text = "".join(chunk.choices[0].text for chunk in self.complete(stream=True))
        check(text == self.complete().choices[0].text, "the stream's text to equal the whole answer's")

    def completions_batch(self) -> None:
        answer = self.complete(prompt=["One, two,", "Red, green,"], n=2, temperature=0.5, max_tokens=4)
        check([choice.index for choice in answer.choices] == [0, 1, 2, 3], "four answers, numbered")

    def completions_token_ids(self) -> None:
        ids = self.post("/tokenize", prompt="The capital of France is")["tokens"]
        check(self.complete(prompt=ids).choices[0].text == self.complete().choices[0].text, "ids to mean the text")

    def completions_echo_logprobs(self) -> None:
        found = self.complete(echo=True, logprobs=1, max_tokens=1).choices[0].logprobs
        check(found.token_logprobs[0] is None, "no log probability of the first token")
        check(len(found.tokens) == len(found.token_logprobs) == len(found.text_offset), "lists of one length")
        check(all(value <= 0 for value in found.token_logprobs[1:]), "log probabilities below zero")

    def completions_best_of(self) -> None:
        answer = self.complete(best_of=3, n=1, temperature=1.0, seed=3)
        check(len(answer.choices) == 1 and answer.usage.completion_tokens > 8, "the best of three, all counted")

    def completions_suffix(self) -> None:
        self.refused(lambda: self.complete(suffix=" and Spain"), openai.BadRequestError, "suffix")

    # -- the others

    def embeddings(self) -> None:
        found = self.client.embeddings.create(model=self.model, input=["a cat", "a kitten"]).data
        check([each.index for each in found] == [0, 1], "two vectors, numbered")
        check(abs(math.hypot(*found[0].embedding) - 1) < 1e-3, "vectors of length one")

    def embeddings_float(self) -> None:
        base64, plain = (
            self.client.embeddings.create(model=self.model, input="a cat", encoding_format=form).data[0].embedding
            for form in ("base64", "float")
        )
        check(plain[:3] == base64[:3] or isinstance(base64, str), "one vector in both forms")

    def responses_whole(self) -> None:
        answer = self._respond()
        check("Paris" in answer.output_text and answer.status == "completed", f"Paris, got {answer.output_text!r}")

    def responses_stream(self) -> None:
        events = list(self._respond(stream=True))
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        check(events[0].type == "response.created" and events[-1].type == "response.completed", "events in order")
        check(text == events[-1].response.output_text, "deltas that add up")

    def responses_bad_value(self) -> None:
        self.refused(lambda: self._respond(max_output_tokens=10**7), openai.BadRequestError, "max_output_tokens")

    def _respond(self, **more: Any) -> Any:
        asked = {"model": self.model, "input": PARIS[0]["content"], "temperature": 0, "max_output_tokens": 40, **more}
        return self.client.responses.create(**asked)

    def post(self, path: str, **body: Any) -> Any:
        """A route that the SDK has no method for."""
        return self.client.post(self.url + path, cast_to=object, body=body)

    def score(self) -> None:
        yes, no = (
            self.post("/tokenize", prompt=word, add_special_tokens=False)["tokens"][0] for word in (" yes", " no")
        )
        found = self.post("/v1/score", query="Is it?", items=["A", "B"], label_token_ids=[yes, no], apply_softmax=True)
        check(all(abs(sum(each) - 1) < 1e-3 for each in found["scores"]), f"scores that add up to one, got {found}")

    def rerank_without_head(self) -> None:
        self.refused(lambda: self.post("/v1/rerank", query="q", documents=["d"]), openai.BadRequestError, "rerank")

    def classify_without_head(self) -> None:
        self.refused(lambda: self.post("/v1/classify", input="q"), openai.BadRequestError, "classif")

    def no_such_route(self) -> None:
        self.refused(lambda: self.post("/v1/nothing"), openai.NotFoundError, "/v1/nothing")


def main() -> None:
    args = arguments()
    version(openai.__version__)
    contract = Contract(args.url, args.model)
    helpers = {"chat", "complete", "refused", "post"}
    names = [name for name in vars(Contract) if not name.startswith("_") and name not in helpers]
    run_all({name: getattr(contract, name) for name in names})


if __name__ == "__main__":
    main()
