"""A model small enough to check every page by: its keys and values are the tokens themselves.

The next token is a function of everything the row can read through its page table, so a page that is lost, shared
wrongly or overwritten changes the output.
"""

import numpy as np

VOCAB = 17
STOP = 0


def next_token(tokens):
    """The model's greedy choice after ``tokens``."""
    value = 0
    for token in tokens:
        value = (value * 31 + int(token) + 7) % 1_000_003
    return value % VOCAB


def reference(prompt, max_new, stop_ids=(STOP,), context=10**9):
    """What a request must answer whatever happens around it."""
    tokens = list(prompt)
    while len(tokens) < min(len(prompt) + max_new, context):
        tokens.append(next_token(tokens))
        if tokens[-1] in stop_ids:
            break
    return tokens[len(prompt) :]


class Launched:
    def __init__(self, tokens):
        self._tokens = tokens

    def tokens(self):
        return self._tokens


class FakeRunner:
    """Implements ``StepRunner``. Counts the tokens it computed."""

    def __init__(self, num_pages, page_size):
        self.page = page_size
        self.kv = np.full((num_pages + 1) * page_size, -1, np.int64)
        self.computed = 0
        self.steps = 0

    def locations(self, slots, row, start, end):
        positions = np.arange(start, end)
        return slots.page_table[row, positions // self.page].astype(np.int64) * self.page + positions % self.page

    def launch(self, batch, slots):
        self.steps += 1
        self.computed += batch.num_tokens
        for row, start, length in zip(batch.rows, batch.starts, batch.lens, strict=True):
            self.kv[self.locations(slots, row, start, start + length)] = slots.tokens[row, start : start + length]
        sampled = np.zeros(len(batch.rows), np.int32)
        for i in np.flatnonzero(batch.samples):
            end = batch.starts[i] + batch.lens[i]
            sampled[i] = next_token(self.kv[self.locations(slots, batch.rows[i], 0, end)])
        return Launched(sampled)
