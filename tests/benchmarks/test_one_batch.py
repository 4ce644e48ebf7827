"""One batch's latency, with a tiny model on the CPU."""

from backend import Engine
from benchmarks import one_batch
from tests.backend.tiny_models import write_model


def test_times_and_rates_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(one_batch, "ids", lambda random, vocab, count: [random.randrange(3, 60) for _ in range(count)])
    with Engine(write_model("llama", tmp_path), skip_tokenizer_init=True, device="cpu", cpu_threads=1) as engine:
        found = one_batch.measure(engine, 3, 10, 4, repeats=2)
    assert (found["batch"], found["input_len"], found["output_len"]) == (3, 10, 4)
    assert found["first_token_ms"] > 0
    seconds = found["token_ms"] * 3 / 1e3
    assert abs(found["output_tok_s"] * seconds / (3 * 3) - 1) < 0.05
