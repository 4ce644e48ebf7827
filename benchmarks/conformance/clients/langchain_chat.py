"""LangChain's OpenAI classes: answers, streams, tools, structured output, embeddings."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from cases import arguments, check, run_all, version
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

QUESTION = "What is the capital of France?"


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    born: int = Field(ge=0, le=3000)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"18 degrees in {city}"


class Chains:
    def __init__(self, url: str, model: str) -> None:
        self.where: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "model": model, "max_retries": 0}
        self.chat = ChatOpenAI(**self.where, temperature=0, max_tokens=96, timeout=120)

    def invoke(self) -> None:
        answer = self.chat.invoke(QUESTION)
        check("Paris" in answer.content, f"Paris, got {answer.content!r}")
        check(answer.usage_metadata["output_tokens"] > 0, "usage")

    def stream(self) -> None:
        pieces = list(self.chat.stream(QUESTION))
        check(len(pieces) > 2, "several pieces")
        check("Paris" in "".join(piece.content for piece in pieces), "Paris in pieces")

    def chain(self) -> None:
        prompt = ChatPromptTemplate.from_messages([("system", "You are brief."), ("human", "{question}")])
        check(bool((prompt | self.chat).invoke({"question": QUESTION}).content), "an answer through a template")

    def batch(self) -> None:
        check(len(self.chat.batch([QUESTION, "Name a planet."])) == 2, "two answers")

    def tool_call(self) -> None:
        bound = self.chat.bind_tools([weather], tool_choice="weather")
        call = bound.invoke("What is the weather in Paris?").tool_calls[0]
        check(call["name"] == "weather" and "city" in call["args"], f"a call, got {call}")

    def tool_call_stream(self) -> None:
        bound = self.chat.bind_tools([weather], tool_choice="weather")
        whole = None
        for piece in bound.stream("What is the weather in Paris?"):
            whole = piece if whole is None else whole + piece
        check(whole is not None and "city" in whole.tool_calls[0]["args"], "a call in pieces")

    def tool_result(self) -> None:
        call = {"name": "weather", "args": {"city": "Paris"}, "id": "c1"}
        said = [
            HumanMessage("Weather in Paris?"),
            AIMessage("", tool_calls=[call]),
            ToolMessage("18 degrees", tool_call_id="c1"),
        ]
        check(self.chat.bind_tools([weather]).invoke(said).response_metadata["finish_reason"] is not None, "an end")

    def structured_output(self) -> None:
        person = self.chat.with_structured_output(Person, method="json_schema").invoke("Who was Ada Lovelace?")
        check(isinstance(person, Person), f"a Person, got {person}")

    def structured_by_tool(self) -> None:
        person = self.chat.with_structured_output(Person, method="function_calling").invoke("Who was Ada Lovelace?")
        check(isinstance(person, Person), f"a Person, got {person}")

    def responses_api(self) -> None:
        answer = ChatOpenAI(**self.where, temperature=0, use_responses_api=True, timeout=120).invoke(QUESTION)
        check("Paris" in answer.text, f"Paris, got {answer.content!r}")

    def completion(self) -> None:
        text = OpenAI(**self.where, temperature=0, max_tokens=8).invoke("The capital of France is")
        check("Paris" in text, f"Paris, got {text!r}")

    def embeddings_of_texts(self) -> None:
        """Without its own tokenizer, which is another model's."""
        vectors = OpenAIEmbeddings(**self.where, check_embedding_ctx_length=False).embed_documents(
            ["a cat", "a kitten"]
        )
        check(len(vectors) == 2, "two vectors")


def main() -> None:
    args = arguments()
    version(importlib.metadata.version("langchain-openai"))
    chains = Chains(args.url, args.model)
    run_all({name: getattr(chains, name) for name in vars(Chains) if not name.startswith("_")})


if __name__ == "__main__":
    main()
