"""Namespaces: two that differ in any part never look alike."""

from hypothesis import given
from hypothesis import strategies as st

from router.namespace import joined, split

PARTS = st.lists(st.text(st.sampled_from("a1:\x1f\0é"), max_size=4), min_size=3, max_size=3)


@given(PARTS, PARTS)
def test_different_parts_make_different_namespaces(one, other):
    assert (joined(one) == joined(other)) == (one == other)


@given(PARTS)
def test_the_parts_can_be_read_back(parts):
    assert split(joined(parts)) == (parts if any(parts) else [])


def test_a_separator_in_a_salt_does_not_make_it_another_tenants():
    assert joined(["", "a\x1fb", ""]) != joined(["", "a", "b"])
