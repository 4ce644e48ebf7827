"""Parts of the benchmarks of structured output that could be wrong without anybody noticing."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.grammar import GrammarSpec, Vocabulary
from benchmarks import guided_step, schemas
from benchmarks.chat_prompt import conversation
from benchmarks.random_schemas import random_document_schema, random_object_schema


@given(st.lists(st.sets(st.integers(0, 99), min_size=1), min_size=1, max_size=5), st.integers(0, 1))
def test_the_made_up_device_samples_what_is_allowed(allowed: list[set[int]], turn: int) -> None:
    bits = np.zeros((len(allowed), 4), np.int32)
    for row, tokens in enumerate(allowed):
        for token in tokens:
            bits[row].view(np.uint32)[token // 32] |= np.uint32(1 << token % 32)
    chosen = guided_step._any_token(bits, turn)
    assert all(token in tokens for token, tokens in zip(chosen.tolist(), allowed, strict=True))


def test_a_guided_step_is_measured() -> None:
    vocabulary = Vocabulary.of_bytes()
    plain = guided_step.measure(2, 5, None, vocabulary)
    guided = guided_step.measure(2, 5, GrammarSpec("regex", "(abc|abd|x){1000}"), vocabulary)
    assert (len(plain.host_ms), plain.mask_ms) == (5, [])
    assert (len(guided.host_ms), len(guided.mask_ms)) == (5, 5)
    assert guided.tokens >= 1


@pytest.mark.parametrize("make", [random_object_schema, random_document_schema])
def test_random_schemas_are_schemas_and_come_again(make: object) -> None:
    for seed in range(30):
        jsonschema.Draft202012Validator.check_schema(make(seed))
        assert make(seed) == make(seed)


def test_a_wrong_answer_is_told() -> None:
    assert schemas.problem("[1]", {"type": "array"}) == ""
    assert "not of type" in schemas.problem("{}", {"type": "array"})
    assert schemas.problem("{", {"type": "array"})


def test_a_conversation_is_as_long_as_asked() -> None:
    def count(chat: list[dict[str, str]]) -> int:
        return sum(len(message["content"]) for message in chat) // 4

    assert 2000 <= count(conversation(count, 2000)) < 2400
