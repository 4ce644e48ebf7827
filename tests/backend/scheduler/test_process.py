"""The scheduler's loop between its sockets."""

from __future__ import annotations

import threading

import msgspec
import zmq

from backend.messages import FromScheduler, NewRequest, ProfileCommand, SchedulerStats, ToScheduler
from backend.sampling_params import SamplingParams
from backend.scheduler.process import SchedulerLoop, StepProfiler
from tests.backend.scheduler.harness import Harness


class Answers:
    def __init__(self) -> None:
        self.steps = 0

    def answer(self, command: ProfileCommand) -> tuple[bool, str]:
        return command.folder != "", command.folder

    def stepped(self) -> None:
        self.steps += 1


def tell(stats: SchedulerStats) -> None:
    stats.graph_decodes_total = 7


def said(profiler: StepProfiler, *messages: ToScheduler, at_once: bool = False) -> list[FromScheduler]:
    """What the loop answers to each, one by one; ``at_once`` all of them wait for it when it begins."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as to, context.socket(zmq.PULL) as back:
        to.bind("inproc://to")
        back.bind("inproc://from")
        back.setsockopt(zmq.RCVTIMEO, 10_000)
        inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        with inbox, outbox:
            inbox.connect("inproc://to")
            outbox.connect("inproc://from")
            target = SchedulerLoop(Harness().scheduler, inbox, outbox, profiler=profiler, tell=tell).run
            loop = threading.Thread(target=target)
            found = []
            for message in messages:
                to.send(msgspec.msgpack.encode(message))
                if not at_once:
                    if not loop.is_alive():
                        loop.start()
                    found.append(msgspec.msgpack.decode(back.recv(), type=FromScheduler))
            if at_once:
                loop.start()
                found += [msgspec.msgpack.decode(back.recv(), type=FromScheduler) for _ in messages]
            to.send(msgspec.msgpack.encode(ToScheduler(shutdown=True)))
            loop.join(10)
            assert not loop.is_alive()
            return found


def test_every_message_is_answered_also_an_empty_one() -> None:
    assert [message.finished for message in said(Answers(), *[ToScheduler()] * 3)] == [[], [], []]


def test_profiles_are_begun_and_ended_while_nothing_runs() -> None:
    commands = [ProfileCommand(folder="here"), ProfileCommand(), None]
    profiler = Answers()
    answers = said(profiler, *[ToScheduler(profile=command) for command in commands])
    assert [message.profiled for message in answers] == [[(True, "here")], [(False, "")], []]
    assert profiler.steps == 0


def test_steps_that_compute_something_are_counted_for_a_profile() -> None:
    profiler = Answers()
    request = NewRequest(1, bytes(4 * [5, 0, 0, 0]), SamplingParams(max_new_tokens=1, temperature=0), [])
    said(profiler, ToScheduler(), ToScheduler(profile=ProfileCommand("here", steps=1), new=[request]), ToScheduler())
    assert profiler.steps == 1


def test_what_is_known_of_the_device_is_told_with_the_stats() -> None:
    assert said(Answers(), ToScheduler())[0].stats.graph_decodes_total == 7


def test_a_pause_and_a_resume_that_meet_are_each_told() -> None:
    messages = [ToScheduler(pause="in_place"), ToScheduler(resume=True), ToScheduler(pause="retract")]
    assert [message.stats.paused for message in said(Answers(), *messages, at_once=True)] == [True, False, True]
