"""The scheduler's loop between its sockets."""

from __future__ import annotations

import threading

import msgspec
import zmq

from backend.messages import FromScheduler, ToScheduler
from backend.scheduler.process import SchedulerLoop
from tests.backend.scheduler.harness import Harness


def test_every_message_is_answered_also_an_empty_one() -> None:
    with zmq.Context() as context, context.socket(zmq.PUSH) as to, context.socket(zmq.PULL) as back:
        to.bind("inproc://to")
        back.bind("inproc://from")
        back.setsockopt(zmq.RCVTIMEO, 10_000)
        inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        with inbox, outbox:
            inbox.connect("inproc://to")
            outbox.connect("inproc://from")
            loop = threading.Thread(target=SchedulerLoop(Harness().scheduler, inbox, outbox).run)
            loop.start()
            for _ in range(3):
                to.send(msgspec.msgpack.encode(ToScheduler()))
                assert msgspec.msgpack.decode(back.recv(), type=FromScheduler).finished == []
            to.send(msgspec.msgpack.encode(ToScheduler(shutdown=True)))
            loop.join(10)
            assert not loop.is_alive()
