"""Tokens far beyond the window equal those of ``transformers`` while pages behind it are given back and used anew."""

import pytest

from backend import Engine
from tests.backend.models.families import VARIANTS
from tests.backend.models.parity import sequences
from tests.backend.tiny_models import greedy, save_tiny

NEW_TOKENS = 20
LENGTHS = (130, 90, 41, 7)
SETTINGS = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "cpu_threads": 1,
    "page_size": 4,
    "max_total_tokens": 1024,
    "max_running_requests": 3,
    "chunked_prefill_size": 16,
    "check_invariants": True,
}
GREEDY = {"temperature": 0, "max_new_tokens": NEW_TOKENS}


FAMILIES = ("gpt-oss", "gemma2", "gemma3", "mistral", "qwen2-window")
OTHER_WAYS = (
    {"disable_overlap_schedule": True},
    {"disable_radix_cache": True},
    {"page_size": 1, "chunked_prefill_size": 64},
)
CASES = [*((family, {}) for family in FAMILIES), *(("gemma3", way) for way in OTHER_WAYS), ("mistral", OTHER_WAYS[0])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save_tiny(name, VARIANTS[name].make, tmp_path_factory.mktemp(name)) for name in FAMILIES}


def answers(engine, rows):
    return engine.generate(input_ids=rows, sampling_params=GREEDY, progress=False)


@pytest.mark.parametrize(("family", "settings"), CASES, ids=str)
def test_tokens_equal_the_reference(folders, family, settings):
    folder = folders[family]
    rows = sequences(LENGTHS)
    rows.append(rows[0][:60] + rows[2][:30])  # goes another way from inside a cached prompt
    expected = [greedy(folder, row, NEW_TOKENS) for row in rows]
    with Engine(folder, **SETTINGS | settings) as engine:
        window = engine._scheduler.rows.window
        assert window is not None
        assert window.shared.num_pages * 4 <= engine._scheduler.rows.pages.num_pages
        for _ in range(2):
            assert [answer["output_ids"] for answer in answers(engine, rows)] == expected
        longer = [row + more[:-1] for row, more in zip(rows, expected, strict=True)]
        again = [answers(engine, [row])[0] for row in longer for _ in range(2)]
    assert [answer["output_ids"][0] for answer in again[::2]] == [more[-1] for more in expected]
    assert [answer["output_ids"] for answer in again[::2]] == [answer["output_ids"] for answer in again[1::2]]
    cached = sum(answer["meta_info"]["cached_tokens"] for answer in again[1::2])
    assert (cached > 0) == ("disable_radix_cache" not in settings)


def test_pages_apart_can_be_refused(folders):
    with Engine(folders["mistral"], **SETTINGS, disable_hybrid_swa_memory=True) as engine:
        assert engine._scheduler.rows.window is None
