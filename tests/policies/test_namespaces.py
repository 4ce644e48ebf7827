"""One tree per model, adapter and salt: equal texts of different ones are different prefixes, in text and in blocks."""

from array import array
from itertools import product

import pytest

from policies import make_policy
from policies.policy import Candidate, RouteRequest, WorkerSpeed
from policies.prefix.block_index import BlockIndex, PromptKey, Source, chain_of
from policies.prefix.kv_decode import Stored

TEXT = b"one and the same long system prompt " * 50
SPACES = [RouteRequest(TEXT, 450, model, namespace) for model, namespace in product(("m", "n"), ("", "lora", "salt"))]
WORKERS = [Candidate(f"http://w{number}:1", speed=WorkerSpeed(0.1)) for number in range(len(SPACES))]


@pytest.mark.parametrize("own", range(len(SPACES)))
def test_only_the_holder_of_the_same_space_has_the_text(own):
    policy = make_policy("cache_aware", seed=1)
    for request, candidate in zip(SPACES, WORKERS, strict=True):
        policy.record(request, candidate.worker, 0.0)
    decision = policy.choose(SPACES[own], WORKERS, 60.0)
    assert decision.worker == WORKERS[own].worker
    assert [score.worker for score in decision.scores if score.cached_tokens] == [WORKERS[own].worker]


def test_only_the_holder_of_the_same_key_has_the_blocks():
    tokens = array("i", range(9)).tobytes()
    index = BlockIndex(2**20)
    salts = ((), ("salt",), ("salt", "key"), ("", "salt"), ("salt\x1fkey",), ("4:saltkey",))
    keys = [PromptKey(lora, each) for lora, each in product(("", "lora"), salts)]
    for number, key in enumerate(keys):
        stored = Stored([number * 10, number * 10 + 1], None, tokens[:32], 4, key.lora, (key.salts,))
        index.apply(Source(str(number)), [stored])
    for number, key in enumerate(keys):
        assert set(index.match({4: chain_of(tokens, 4, key)})) == {str(number)}
