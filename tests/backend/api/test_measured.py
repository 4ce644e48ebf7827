"""The speed that a server tells of itself."""

from __future__ import annotations

import pytest

from backend.api.measured import MeasuredSpeed
from backend.messages import SchedulerStats


def totals(prompts: int, decoded: int, seconds: float) -> SchedulerStats:
    return SchedulerStats(prefill_tokens_total=prompts, decode_tokens_total=decoded, step_seconds_total=seconds)


def test_prompts_and_decode_steps_are_timed_apart():
    measured = MeasuredSpeed()
    assert measured.as_json() == {"prefill_ms_per_token": None, "decode_ms_per_step": None}
    prompts, decoded, seconds = 500, 9, 3.0  # of before the first look
    measured.record(totals(prompts, decoded, seconds))
    for step in range(100):
        if step % 2:
            prompts, decoded, seconds = prompts + 2000, decoded + 3, seconds + 0.4
        else:
            decoded, seconds = decoded + 16, seconds + 0.012
        measured.record(totals(prompts, decoded, seconds))
        measured.record(totals(prompts, decoded, seconds))  # a message without a step
    assert measured.as_json() == {
        "prefill_ms_per_token": pytest.approx(0.2),
        "decode_ms_per_step": pytest.approx(12.0),
    }


def test_mixed_steps_and_a_scheduler_that_starts_anew_tell_nothing():
    measured = MeasuredSpeed()
    measured.record(totals(0, 0, 0.0))
    measured.record(totals(100, 0, 5.0))  # a short prompt: the step's fixed time
    measured.record(totals(400, 200, 9.0))
    measured.record(totals(0, 0, 0.0))
    assert measured.as_json() == {"prefill_ms_per_token": None, "decode_ms_per_step": None}
    measured.record(totals(1000, 0, 0.1))
    assert measured.as_json()["prefill_ms_per_token"] == pytest.approx(0.1)
