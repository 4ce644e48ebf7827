"""Drives a scheduler with the fake model and keeps what it said."""

import numpy as np

from backend.messages import NewRequest, ToScheduler
from backend.sampling_params import SamplingParams
from backend.scheduler.limits import SchedulerLimits, make_rows
from backend.scheduler.loop import Scheduler
from tests.backend.scheduler.fake_runner import STOP, FakeRunner, reference

DEFAULTS = {
    "max_running_requests": 4,
    "max_queued_requests": None,
    "context_length": 64,
    "num_pages": 32,
    "page_size": 2,
    "prefill_budget": 8,
    "check_invariants": True,
}


class Harness:
    def __init__(self, late=False, **limits):
        self.limits = SchedulerLimits(**(DEFAULTS | limits))
        host_pages = self.limits.host.pages if self.limits.host else 0
        self.runner = FakeRunner(self.limits.num_pages, self.limits.page_size, late, host_pages, self.limits.window)
        self.scheduler = Scheduler(self.runner, self.limits, make_rows(self.limits))
        self.begin()

    def begin(self):
        """Nothing was asked yet."""
        self.outputs: dict[int, list[int]] = {}
        self.finished = {}
        self.cached = {}
        self.fetched = {}
        self.asked = {}

    def add(self, *prompts, max_new=6, namespace="", stop_ids=(STOP,), priority=0, **sampling):
        uids = []
        for prompt in prompts:
            uid = len(self.asked) + 1
            self.asked[uid] = (list(prompt), max_new, stop_ids)
            params = SamplingParams(max_new_tokens=max_new, temperature=0, **sampling)
            ids = np.array(prompt, np.int32).tobytes()
            self.scheduler.receive(ToScheduler(new=[NewRequest(uid, ids, params, list(stop_ids), namespace, priority)]))
            uids.append(uid)
        return uids

    def abort(self, uid):
        self.scheduler.receive(ToScheduler(abort=[uid]))
        if uid not in self.finished:
            self.finished[uid] = None

    def flush(self):
        """Whether the prefix cache could be emptied; nothing may be left of it then."""
        self.scheduler.receive(ToScheduler(flush_cache=1))
        quiet = not self.scheduler.requests  # else those that wait fill it anew in the step that answers
        done = self.step().flushed[1]
        if done and quiet:
            rows = self.scheduler.rows
            assert rows.pages.free_pages == self.limits.num_pages
            assert rows.host is None or rows.host.used_host_pages == 0
            assert rows.window is None or rows.window.shared.free_pages == rows.window.shared.num_pages
        return done

    def step(self):
        out = self.scheduler.step()
        for uid, cached in out.started:
            assert uid not in self.cached
            self.cached[uid] = cached
        self.fetched |= dict(out.fetched)
        for uid, token in zip(out.uids, out.tokens, strict=True):
            assert uid not in self.finished, "a token after the end"
            self.outputs.setdefault(uid, []).append(token)
        for finish in out.finished:
            assert finish.uid not in self.finished
            self.finished[finish.uid] = finish
        return out

    def run(self):
        for _ in range(10_000):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")

    def expected(self, prompt, max_new, stop_ids):
        return reference(prompt, max_new, stop_ids, self.limits.context_length)

    def check_answers(self):
        """Every request that was not aborted answered what the model says, and nothing is left."""
        for uid, (prompt, max_new, stop_ids) in self.asked.items():
            finish = self.finished[uid]
            if finish is None or finish.kind == "abort":
                continue
            expected = self.expected(prompt, max_new, stop_ids)
            assert self.outputs.get(uid, []) == expected
            stopped = bool(expected) and expected[-1] in stop_ids
            assert (finish.kind, finish.matched) == (("stop", expected[-1]) if stopped else ("length", -1))
        scheduler = self.scheduler
        assert not scheduler.requests
        assert not scheduler.running.leaving
        assert scheduler.slots.free_slots == self.limits.max_running_requests
        assert scheduler.rows.pages.free_pages + scheduler.rows.radix.evictable_pages == self.limits.num_pages
