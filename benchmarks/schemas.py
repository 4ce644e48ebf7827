"""Structured output of the default model: is every finished answer valid, and how soon are hostile grammars refused?

    python -m benchmarks.schemas [--count 500] [--parts chance model hostile] [--cpu-threads 2]

Each schema (random ones by seed, and some by hand) is answered by a model that says anything its grammar allows, over
the default model's vocabulary, and by the default model itself, in batches, at temperature 1. What is finished must
validate with ``jsonschema``; answers that reach the limit of tokens are counted apart. Hostile grammars go, one after
the other, to the process that tries grammars; the time is that of the slowest answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from typing import Any

import jsonschema

from backend.grammar import GrammarChecker, GrammarCompiler, GrammarError, GrammarSpec, Vocabulary
from backend.grammar.spec import make_spec
from backend.prompt import load_prompt, resolve_model
from backend.prompt.tokenizer import Tokenizer
from benchmarks.random_model import generate
from benchmarks.random_schemas import HAND_WRITTEN, Schema, random_document_schema, random_object_schema

PARTS = ("chance", "model", "hostile")
TOKENS = 400
BATCH = 32
BRANCHES = [{"anyOf": [{"type": "string", "pattern": f"a{i}|b{j}"} for j in range(8)]} for i in range(8)]
WIDE = {f"p{number}": {"type": "string"} for number in range(4000)}
HOSTILE: dict[str, tuple[str, Any]] = {
    "deep JSON": ("json_schema", "[" * 5000),
    "deep groups": ("regex", "(" * 2000 + "a" + ")" * 2000),
    "deep EBNF": ("ebnf", "root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
    "a chain of 4,000 rules": (
        "ebnf",
        "root ::= r0\n" + "\n".join(f'r{i} ::= r{i + 1} r{i + 1} | "a"' for i in range(4000)) + '\nr4000 ::= "b"',
    ),
    "a reference to itself": ("json_schema", {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
    "8 to the power of 8 branches": ("json_schema", {"allOf": BRANCHES}),
    "4,000 optional properties": ("json_schema", {"type": "object", "properties": WIDE}),
    "an enum of 500 KB": ("json_schema", {"enum": [f"value number {number}" for number in range(20_000)]}),
    "a huge divisor": ("json_schema", {"type": "integer", "multipleOf": 999_999_937}),
}


def all_schemas(count: int) -> dict[str, Schema]:
    """Half of the ``count`` with what newer schemas have, and those by hand."""
    makers = (random_object_schema, random_document_schema)
    return {f"seed {seed}": makers[seed % 2](seed) for seed in range(count)} | HAND_WRITTEN


def problem(text: str, schema: Schema) -> str:
    """Why ``text`` is no valid answer; empty when it is one."""
    try:
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).splitlines()[0]
    return ""


def random_answers(schemas: dict[str, Schema], tokenizer: Tokenizer) -> dict[str, str | None]:
    """A text for each schema, None where the limit came first."""
    eos = list(tokenizer.eos_token_ids)
    vocabulary = Vocabulary.from_json(tokenizer.to_json(), size=tokenizer.vocab_size, eos_token_ids=eos)
    compiler = GrammarCompiler(lambda: vocabulary)
    enders = frozenset(token for text in ('"', "}", "]") for token in tokenizer.encode(text, add_special_tokens=False))
    answers: dict[str, str | None] = {}
    for number, (name, schema) in enumerate(schemas.items()):
        state = compiler.submit(make_spec("json_schema", schema)).result().start()
        chance = random.Random(number)
        tokens, _ = generate(
            state, vocabulary.size, eos[0], chance, jump=number % 4 < 2, limit=4 * TOKENS, enders=enders
        )
        answers[name] = tokenizer.decode(tokens) if state.is_done else None
    compiler.close()
    return answers


def model_answers(schemas: dict[str, Schema], threads: int | None) -> dict[str, str | None]:
    """As :func:`random_answers`, by the default model."""
    from backend import Engine  # not above: the process that tries grammars starts from this module

    names = list(schemas)
    with Engine(cpu_threads=threads, max_total_tokens=32 * 1024, max_running_requests=BATCH) as engine:
        prompts = [f"JSON for {name}:\n" for name in names]
        sampling = [
            {"json_schema": json.dumps(schemas[name]), "max_new_tokens": TOKENS, "temperature": 1.0, "sampling_seed": i}
            for i, name in enumerate(names)
        ]
        answers = engine.generate(prompts, sampling)
    ends = [answer["meta_info"]["finish_reason"]["type"] for answer in answers]
    return {
        name: answer["text"] if end == "stop" else None for name, answer, end in zip(names, answers, ends, strict=True)
    }


def judge(title: str, answers: dict[str, str | None], schemas: dict[str, Schema]) -> int:
    """Print a row; returns how many finished answers are wrong."""
    wrong = {name: why for name, text in answers.items() if text is not None and (why := problem(text, schemas[name]))}
    cut = sum(text is None for text in answers.values())
    print(f"| {title} | {len(answers)} | {len(answers) - cut - len(wrong)} | {cut} | {len(wrong)} |")
    for name, why in wrong.items():
        print(f"    {name}: {why}; {answers[name]!r}")
    return len(wrong)


async def refuse_all() -> int:
    """Print how the hostile ones fare; returns how many were taken."""
    checker = GrammarChecker()
    await checker.check(GrammarSpec("regex", "a"))  # the process starts on first use
    taken, slowest = [], (0.0, "")
    for name, (kind, value) in HOSTILE.items():
        started = time.perf_counter()
        try:
            await checker.check(make_spec(kind, value))
            taken.append(name)
        except GrammarError as error:
            seconds = time.perf_counter() - started
            slowest = max(slowest, (seconds, name))
            print(f"{seconds:6.2f} s {name}: {error}")
    await asyncio.to_thread(checker.close)
    print(f"\nhostile grammars: {len(HOSTILE) - len(taken)} of {len(HOSTILE)} refused {taken or ''}")
    print(f"slowest refusal: {slowest[0]:.2f} s ({slowest[1]})")
    return len(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to do (all)")
    parser.add_argument("--cpu-threads", type=int, default=None)
    arguments = parser.parse_args()
    schemas = all_schemas(arguments.count)
    faults = 0
    print("| answers of | schemas | valid | cut by their length | wrong |\n|---|---|---|---|---|")
    if "chance" in arguments.parts:
        faults += judge("chance", random_answers(schemas, load_prompt(resolve_model(None)).tokenizer), schemas)
    if "model" in arguments.parts:
        faults += judge("the default model", model_answers(schemas, arguments.cpu_threads), schemas)
    if "hostile" in arguments.parts:
        faults += asyncio.run(refuse_all())
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
