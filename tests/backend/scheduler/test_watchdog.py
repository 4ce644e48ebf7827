import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import msgspec
import pytest
import zmq

from backend.messages import NewRequest, ToScheduler
from backend.sampling_params import SamplingParams
from backend.scheduler.process import SchedulerLoop
from backend.scheduler.watchdog import EXIT_CODE, Watchdog
from tests.backend.scheduler.harness import Harness


def test_a_step_that_hangs_is_told_once():
    barked, said = threading.Event(), []
    watchdog = Watchdog(0.05, lambda: "3 rows", bark=lambda message: (said.append(message), barked.set()))
    watchdog.begin(time.monotonic())
    assert barked.wait(10)
    watchdog.close()
    assert said == ["no step ended for 0.05 s (--watchdog-timeout); 3 rows"]


def test_steps_that_end_and_idle_times_are_no_hang():
    said = []
    watchdog = Watchdog(30, lambda: "", bark=said.append)
    for _ in range(100):
        watchdog.begin(time.monotonic())
        watchdog.end()
    watchdog.close()
    assert said == []


def test_the_process_ends_with_its_stacks_in_the_log():
    script = (
        "import threading, time\n"
        "from backend.scheduler.watchdog import Watchdog\n"
        "def hanging_step():\n"
        "    threading.Event().wait()\n"
        "Watchdog(0.05, lambda: '2 rows, 7 tokens').begin(time.monotonic())\n"
        "hanging_step()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_CODE
    assert "2 rows, 7 tokens" in done.stderr
    assert "hanging_step" in done.stderr


@pytest.mark.parametrize(("waiter", "under_way"), [("step", "none"), ("pause", "1 rows with 1 tokens")])
def test_a_loop_whose_step_hangs_is_told_with_its_requests(monkeypatch, waiter, under_way):
    harness, told, said = Harness(overlap=True), threading.Event(), []

    def hang(*_):
        assert told.wait(10)
        raise KeyboardInterrupt

    def launch_and_pause(batch, slots):
        to.send(msgspec.msgpack.encode(ToScheduler(pause="in_place")))
        return SimpleNamespace(tokens=hang)

    def bark(message):
        said.append(message)
        told.set()

    def run():
        try:
            SchedulerLoop(harness.scheduler, inbox, outbox, watchdog=watchdog).run()
        except KeyboardInterrupt:
            ended.set()

    monkeypatch.setattr(harness.runner, "launch", hang if waiter == "step" else launch_and_pause)
    ended, watchdog = threading.Event(), Watchdog(0.05, harness.scheduler.describe, bark=bark)
    with zmq.Context() as context, context.socket(zmq.PUSH) as to, context.socket(zmq.PULL) as back:
        to.bind("inproc://to")
        back.bind("inproc://from")
        with context.socket(zmq.PULL) as inbox, context.socket(zmq.PUSH) as outbox:
            inbox.connect("inproc://to")
            outbox.connect("inproc://from")
            ids = b"\1\0\0\0"
            new = NewRequest(1, ids, SamplingParams(max_new_tokens=2), [])
            to.send(msgspec.msgpack.encode(ToScheduler(new=[new])))
            loop = threading.Thread(target=run)
            loop.start()
            loop.join(20)
    watchdog.close()
    assert ended.is_set()
    assert [message.partition("; ")[2] for message in said] == [
        f"1 requests, 0 of them waiting; steps under way: {under_way}"
    ]
