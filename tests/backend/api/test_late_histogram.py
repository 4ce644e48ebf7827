from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from backend.api.late_histogram import LateHistogram

BUCKETS = (0.125, 0.5, 2)


def told(registry):
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if not line.startswith("#") and "_created" not in line)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 7.0]), max_size=20), max_size=4))
def test_it_tells_what_the_clients_own_histogram_tells(rounds):
    late, plain = CollectorRegistry(), CollectorRegistry()
    family = LateHistogram("gap_seconds", "Gaps", BUCKETS, ("model",))
    late.register(family)
    reference = Histogram("gap_seconds", "Gaps", ("model",), buckets=BUCKETS, registry=plain)
    for label, values in enumerate(rounds):
        for value in values:
            family.labels(f"m{label % 2}").observe(value)
            reference.labels(f"m{label % 2}").observe(value)
        assert told(late) == told(plain)
