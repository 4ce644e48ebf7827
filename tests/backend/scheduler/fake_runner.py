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


def fold(tokens):
    """One number for all of ``tokens``, as the vector of a prompt."""
    value = 0
    for token in tokens:
        value = (value * 31 + int(token) + 7) % 65_521
    return np.array([value], np.float32)


class Launched:
    """A step on the fake device.

    ``late`` steps are computed when somebody asks for their tokens, in order of launch.
    """

    def __init__(self, compute):
        self._compute = compute
        self._tokens = None
        self.vectors = []

    def run(self):
        if self._tokens is None:
            self._tokens = self._compute()

    def tokens(self):
        return self._tokens

    def pooled(self):
        return self.vectors


class FakeRunner:
    """Implements ``StepRunner``. Counts the tokens it computed.

    Like a device it takes the page table at launch, and reads and writes a token pool of its own when the step runs,
    which hears of the host's tokens only through a batch's ``fresh`` rows. With
    ``late`` that is at the last moment which the order of steps allows, without it at once. Copies between device and
    host run in their order, but not before a step has to wait for them. With ``window`` it has another layer, which
    sees so many tokens in pages of its own: what is computed from a wrong one is wrong.
    """

    def __init__(self, num_pages, page_size, late=False, host_pages=0, window=None):
        self.page = page_size
        self.late = late
        self.kv = np.full((num_pages + 1) * page_size, -1, np.int64)
        self.host = np.full((host_pages + 1, page_size), -2, np.int64)
        self.window = window.window if window else 0
        self.window_kv = np.full((window.num_pages + 1 if window else 0) * page_size, -3, np.int64)
        self._moves = []
        self._pool = None
        self.computed = 0
        self.steps = 0
        self._queue = []

    def launch(self, batch, slots):
        self.steps += 1
        self.computed += batch.num_tokens
        ends = batch.starts + batch.lens
        rows = [
            (row, start, end, sample, self._locations(slots.page_table, row, end))
            for row, start, end, sample in zip(batch.rows, batch.starts, ends, batch.samples, strict=True)
        ]
        windows = [
            self._locations(slots.window.table, row, end) if self.window else None
            for row, end in zip(batch.rows, ends, strict=True)
        ]
        if self._pool is None:
            self._pool = np.full_like(slots.tokens, -1)
        fresh = [(row, slots.tokens[row, : slots.known[row]].copy()) for row in batch.fresh]
        step = Launched(lambda: self._run(rows, windows, fresh, batch, step))
        self._queue.append(step)
        if not self.late:
            self._drain(step)
        wait = step.tokens
        step.tokens = lambda: self._drain(step) or wait()
        return step

    def _locations(self, table, row, end):
        positions = np.arange(end)
        return table[row, positions // self.page].astype(np.int64) * self.page + positions % self.page

    def _drain(self, step):
        while step in self._queue:
            self._queue.pop(0).run()

    def _copy(self, transfers):
        self._moves += transfers.moves
        if transfers.fence:
            pages = self.kv.reshape(-1, self.page)
            for move in self._moves:
                if move.to_host:
                    self.host[move.host] = pages[move.device]
                else:
                    pages[move.device] = self.host[move.host]
            self._moves.clear()

    def chooser(self, batch):
        """How the step of ``batch`` chooses the next token of its i-th row."""
        return lambda _, tokens: next_token(tokens)

    def _sees_its_window(self, row, start, end, locations):
        """Store the row's tokens in the window's pages; whether each of them sees the right ones."""
        first = max(start - self.window + 1, 0)
        self.window_kv[locations[start:]] = self._pool[row, start:end]
        return np.array_equal(self.window_kv[locations[first:]], self._pool[row, first:end])

    def _run(self, rows, windows, fresh, batch, step):
        pool, transfers, choose = self._pool, batch.transfers, self.chooser(batch)
        for row, tokens in fresh:
            pool[row, : len(tokens)] = tokens
        if transfers is not None:
            self._copy(transfers)
        sampled = np.zeros(len(rows), np.int32)
        for row, start, end, _, locations in rows:
            self.kv[locations[start:]] = pool[row, start:end]
        for (row, start, end, _, locations), window in zip(rows, windows, strict=True):
            if window is not None and not self._sees_its_window(row, start, end, window):
                self.kv[locations[start:]] = -4
        for i, (row, _, end, sample, locations) in enumerate(rows):
            if sample:
                sampled[i] = choose(i, self.kv[locations])
                pool[row, end] = sampled[i]
        for each in batch.pooled:
            _, start, _, _, locations = rows[each.index]
            computed = self.kv[locations[start:]]
            step.vectors.append(np.array([computed.sum()], np.float32) if each.mean else fold(self.kv[locations]))
        return sampled
