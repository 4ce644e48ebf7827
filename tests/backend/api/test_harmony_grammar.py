"""gpt-oss: what is asked of answers and calls holds on their channels, and reasoning stays free."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken

from backend.api.harmony_grammar import harmony_grammar
from backend.grammar import GrammarError, GrammarSpec, GrammarState, Vocabulary
from backend.grammar.compiler import compile_grammar
from backend.grammar.spec import make_spec
from tests.backend.prompt.tiny import train

MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
ANSWER = make_spec("json_schema", SCHEMA)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}]
THOUGHT = "<|channel|>analysis<|message|>Hm < é.\n<|end|><|start|>assistant"
REMARK = "<|channel|>commentary<|message|>I will look.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo"}'
CALL = "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
OTHER_CALL = " to=functions.weather<|channel|>commentary <|constrain|>json<|message|>"

TOKENIZER = train()
TOKENIZER.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
ENDS = [TOKENIZER.token_to_id("<|return|>"), TOKENIZER.token_to_id("<|call|>")]
VOCABULARY = Vocabulary.from_json(
    TOKENIZER.to_str(), size=TOKENIZER.get_vocab_size(), eos_token_ids=ENDS, special_tokens=MARKS
)


def after(spec: GrammarSpec, text: str) -> GrammarState:
    state = compile_grammar(spec, VOCABULARY).start()
    for token in TOKENIZER.encode(text, add_special_tokens=False).ids:
        state.advance(token)
    return state


@pytest.mark.parametrize("before", ["", THOUGHT, REMARK, THOUGHT + REMARK])
@pytest.mark.parametrize("head", [FINAL, "<|channel|>final <|constrain|>json<|message|>"])
def test_an_answer_follows_its_schema_behind_free_reasoning(before: str, head: str) -> None:
    assert after(harmony_grammar(ANSWER, []), before + head + ROME).is_done
    with pytest.raises(GrammarError):
        after(harmony_grammar(ANSWER, []), before + head + OSLO)


@pytest.mark.parametrize("kind", ["regex", "ebnf"])
def test_other_constraints(kind: str) -> None:
    spec = make_spec(kind, {"regex": "[0-9]{3}", "ebnf": "root ::= [0-9] [0-9] [0-9]"}[kind])
    assert after(harmony_grammar(spec, []), f"{THOUGHT}{FINAL}123").is_done
    with pytest.raises(GrammarError):
        after(harmony_grammar(spec, []), f"{FINAL}12a")


@pytest.mark.parametrize("call", [CALL, OTHER_CALL])
def test_a_demanded_call_is_made_and_fits(call: str) -> None:
    spec = harmony_grammar(None, TOOLS, demanded=True)
    assert after(spec, THOUGHT + call + ROME).is_done
    for wrong in (call + OSLO, FINAL + "no", call.replace("weather", "wind") + ROME):
        with pytest.raises(GrammarError):
            after(spec, THOUGHT + wrong)


def test_strict_tools_leave_the_answer_free() -> None:
    spec = harmony_grammar(None, TOOLS)
    assert after(spec, THOUGHT + FINAL + 'Anything, {"city": 5}').may_end
    assert after(spec, THOUGHT + CALL + ROME).is_done
    with pytest.raises(GrammarError):
        after(spec, CALL + OSLO)


def test_a_constrained_answer_or_a_call() -> None:
    spec = harmony_grammar(ANSWER, TOOLS)
    assert after(spec, FINAL + ROME).is_done
    assert after(spec, CALL + ROME).is_done


def test_what_leads_to_the_call_is_not_sampled() -> None:
    state = after(harmony_grammar(None, TOOLS, demanded=True), "<|channel|>commentary to")
    assert TOKENIZER.decode(state.forced(), False).startswith("=functions.weather <|constrain|>json<|message|>")


def test_tools_that_are_not_strict_take_any_object() -> None:
    loose = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
    assert after(harmony_grammar(ANSWER, loose), CALL + json.dumps({"any": [1]})).is_done
