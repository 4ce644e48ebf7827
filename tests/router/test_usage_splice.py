"""Asking streams for usage unseen: the body gains one field, the client's stream loses one event."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.usage_splice import UsageFilter, spliced

CHAT = "/v1/chat/completions"
USAGE = b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
WORD = b'data: {"id":"1","choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n'
TRICK = b'data: {"id":"1","choices":[{"delta":{"content":"\\"choices\\":[] \\"usage\\":{"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def test_the_field_is_spliced_into_the_original_bytes():
    body = b' {\n "model": "m", "stream" : true, "x": 1.00, "messages": [{"content": "{"}]}'
    asked = spliced(CHAT, body)
    assert json.loads(asked) == {**json.loads(body), "stream_options": {"include_usage": True}}
    assert asked.replace(b'"stream_options":{"include_usage":true},', b"") == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream": false}',
        b'{"model": "m"}',
        b'{"stream": true, "stream_options": {"include_usage": false}}',
        b'{"stream": true, "stream_options": null}',
        b'{"stream": "true"}',
        b"[]",
        b"not json",
        b"",
    ],
)
def test_what_goes_as_it_is(body):
    assert spliced(CHAT, body) is None


def test_other_routes_tell_anyway():
    assert spliced("/generate", b'{"stream": true}') is None


@given(st.lists(st.sampled_from([WORD, TRICK, b": comment\n\n", DONE]), max_size=6), st.data())
def test_exactly_the_usage_event_is_taken_out(events, data):
    place = data.draw(st.integers(0, len(events)))
    stream = b"".join([*events[:place], USAGE, *events[place:]])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    usage = UsageFilter()
    out = b"".join(map(usage.feed, pieces)) + usage.rest()
    assert out == b"".join(events)
    assert usage.removed == 1


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_anything_else_passes_byte_for_byte(chunks):
    usage = UsageFilter()
    assert b"".join(map(usage.feed, chunks)) + usage.rest() == b"".join(chunks)


def test_a_whole_event_leaves_at_once():
    usage = UsageFilter()
    assert usage.feed(WORD) == WORD
    assert usage.feed(WORD[:-1]) == b""
    assert usage.feed(WORD[-1:]) == WORD


def test_an_event_without_an_end_is_not_kept_for_ever():
    usage = UsageFilter()
    passed = usage.feed(b"x" * 1_100_000)
    assert len(passed) == 1_100_000
