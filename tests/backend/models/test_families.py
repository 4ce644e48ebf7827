"""Every family gives the logits and the greedy tokens of ``transformers`` in float32."""

import pytest

from backend import Engine
from tests.backend.models.families import TEXT_PARTS, VARIANTS
from tests.backend.models.parity import WAYS, sequences, worst_difference
from tests.backend.tiny_models import greedy, save_tiny

CASES = {**VARIANTS, **TEXT_PARTS}
TOLERANCE = 1e-4
NEW_TOKENS = 12


@pytest.fixture(scope="module", params=CASES)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def folder(variant, tmp_path_factory):
    return save_tiny(variant, CASES[variant].make, tmp_path_factory.mktemp(variant))


@pytest.fixture(scope="module")
def rows(variant):
    return sequences(CASES[variant].lengths)


@pytest.mark.parametrize("way", WAYS)
def test_logits_equal_the_reference(folder, rows, way):
    assert worst_difference(folder, way, rows) < TOLERANCE


def test_greedy_tokens_equal_the_reference(folder, rows):
    expected = [greedy(folder, row, NEW_TOKENS) for row in rows]
    with Engine(
        folder,
        dtype="float32",
        skip_tokenizer_init=True,
        cpu_threads=1,
        max_total_tokens=1024,
        chunked_prefill_size=32,
        check_invariants=True,
    ) as engine:
        results = engine.generate(
            input_ids=rows, sampling_params={"temperature": 0, "max_new_tokens": NEW_TOKENS}, progress=False
        )
    assert [result["output_ids"] for result in results] == expected
