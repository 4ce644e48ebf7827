"""One stream of KV events: in order, without holes, or known to be incomplete.

A batch that is missing is asked for again (replay). When it cannot be had, or the numbers start over because the engine
did, everything known of the source is forgotten and learned anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import zmq
import zmq.asyncio

from policies.prefix.block_index import BlockIndex, Source
from policies.prefix.kv_decode import MAX_BYTES, Batch, Cleared, DecodeError, decode_batch
from router.fleet.kv_sources import KVSource

log = logging.getLogger(__name__)

END = (-1).to_bytes(8, "big", signed=True)
RECEIVE_QUEUE = 100_000
REPLAY_SECONDS = 5.0  # between two rows of a replay
SLICE = 1024  # events of a large batch that are taken in at once
YIELD_EVERY = 16  # batches taken in before other work gets its turn


class Tally(Protocol):
    """Who counts what happens on streams."""

    def gap(self) -> None: ...

    def resync(self) -> None: ...

    def bad(self, events: int) -> None: ...


class Verdict(Enum):
    """What to do about a batch's number."""

    NEXT = auto()
    OLD = auto()  # came by replay before
    GAP = auto()
    RESET = auto()  # the engine counts from the start again


@dataclass(slots=True)
class Position:
    """Where a stream is. Pure: the rules of sequence numbers and nothing else."""

    expected: int | None = None  # None: nothing has been seen
    stamp: float = 0.0  # of the newest batch taken in

    def judge(self, number: int, stamp: float) -> Verdict:
        if self.expected is None or number == self.expected:
            return Verdict.NEXT
        if number > self.expected:
            return Verdict.GAP
        return Verdict.OLD if stamp <= self.stamp else Verdict.RESET

    def taken(self, number: int, stamp: float) -> None:
        self.expected = number + 1
        self.stamp = max(self.stamp, stamp)


class KVStream:
    """Follows one source and keeps its part of the index, in a task that runs :meth:`run`."""

    def __init__(
        self, context: zmq.asyncio.Context, worker: str, at: KVSource, index: BlockIndex, tally: Tally
    ) -> None:
        self.at = at
        self.complete = False  # everything that the source holds is known
        self.lag = 0.0  # seconds from an event to its being known, by the engine's clock
        self._context = context
        self._source = Source(worker, at.rank)
        self._index = index
        self._tally = tally
        self._position = Position()
        self._taken = 0

    async def run(self) -> None:
        """Until cancelled."""
        subscriber = self._context.socket(zmq.SUB)
        subscriber.set_hwm(RECEIVE_QUEUE)
        subscriber.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        subscriber.setsockopt(zmq.SUBSCRIBE, self.at.topic.encode())
        try:
            subscriber.connect(self.at.endpoint)
            await self._learn()
            while True:
                frames = await subscriber.recv_multipart()
                if len(frames) == 3 and len(frames[1]) == 8:
                    await self._live(int.from_bytes(frames[1], "big"), frames[2])
        except zmq.ZMQError as error:
            log.warning("KV events of %s at %s end here: %s", self._source.worker, self.at.endpoint, error)
        except Exception:
            log.exception("a defect ended the KV events of %s; it is placed by texts", self._source.worker)
        finally:
            self.complete = False  # nobody follows it any more
            subscriber.close(linger=0)

    async def _learn(self) -> None:
        """From nothing: all that the source can still tell."""
        self._index.clear(self._source)
        self._position = Position()
        self.complete = False
        if await self._replay(0) and self._position.expected is None:
            self.complete = True  # it has published nothing yet
            self._position.expected = 0

    async def _live(self, number: int, payload: bytes) -> None:
        batch = self._decoded(payload)
        if batch is None:
            self.complete = False
            return
        self.lag = max(0.0, time.time() - batch.stamp)
        verdict = self._position.judge(number, batch.stamp)
        if verdict is Verdict.GAP:
            verdict = await self._close_gap(number, batch)
        elif verdict is Verdict.RESET:
            log.info("KV events of %s start over: learning its cache anew", self._source.worker)
            verdict = await self._relearn(number, batch)
        if verdict is Verdict.NEXT:
            await self._take(number, batch)

    async def _close_gap(self, number: int, batch: Batch) -> Verdict:
        self._tally.gap()
        expected = self._position.expected
        if expected is not None and await self._replay(max(0, expected - 1)):
            verdict = self._position.judge(number, batch.stamp)
            if verdict is not Verdict.GAP:
                return verdict
        log.warning("KV events of %s were lost: learning its cache anew", self._source.worker)
        return await self._relearn(number, batch)

    async def _relearn(self, number: int, batch: Batch) -> Verdict:
        self._tally.resync()
        await self._learn()
        verdict = self._position.judge(number, batch.stamp)
        if verdict in (Verdict.GAP, Verdict.RESET):  # not even the source has what lies between
            self._index.clear(self._source)
            self._position = Position()
            self.complete = False
            return Verdict.NEXT
        return verdict

    async def _take(self, number: int, batch: Batch) -> None:
        if self._position.expected is None and number == 0:
            self.complete = True  # the beginning
        if any(isinstance(event, Cleared) for event in batch.events):
            self.complete = True  # what was missed before is gone there as well
        for start in range(0, len(batch.events), SLICE):
            if start:
                await asyncio.sleep(0)
            self._index.apply(self._source, batch.events[start : start + SLICE])
        self._position.taken(number, batch.stamp)
        self._check_room()
        self._taken += 1
        if self._taken % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def _check_room(self) -> None:
        """What found no room in the index must not count as what the source does not hold."""
        if self.complete and not self._index.whole(self._source):
            self.complete = False
            log.warning(
                "the blocks of %s do not fit into the index of %d MiB (--prefix-index-bytes): it is placed by texts",
                self._source.worker, self._index.budget_bytes >> 20,
            )  # fmt: skip

    async def _replay(self, first: int) -> bool:
        """Take in what the source still has from ``first`` on. False when it does not answer, or is another one.

        A ``first`` that was taken in before tells: another engine has another batch of that number.
        """
        if self.at.replay_endpoint is None:
            return False
        dealer = self._context.socket(zmq.DEALER)
        dealer.set_hwm(0)
        dealer.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        try:
            dealer.connect(self.at.replay_endpoint)
            await dealer.send_multipart([b"", first.to_bytes(8, "big")])
            while True:
                async with asyncio.timeout(REPLAY_SECONDS):
                    frames = await dealer.recv_multipart()
                if len(frames) < 2 or frames[-2] == END:
                    return True
                if not await self._replayed(frames[-2], frames[-1]):
                    return False
        except TimeoutError:
            log.warning("%s does not answer on its replay socket %s", self._source.worker, self.at.replay_endpoint)
            return False
        finally:
            dealer.close(linger=0)

    async def _replayed(self, number: bytes, payload: bytes) -> bool:
        """False when the engine counts from the start again."""
        batch = self._decoded(payload)
        value = int.from_bytes(number, "big")
        verdict = Verdict.GAP if batch is None else self._position.judge(value, batch.stamp)
        if batch is not None and verdict is Verdict.NEXT:
            await self._take(value, batch)
        elif verdict is not Verdict.OLD:
            self.complete = False
        return verdict is not Verdict.RESET

    def _decoded(self, payload: bytes) -> Batch | None:
        try:
            batch = decode_batch(payload)
        except DecodeError as error:
            log.warning("KV events of %s cannot be read: %s", self._source.worker, error)
            self._tally.bad(1)
            return None
        if batch.skipped:
            self._tally.bad(batch.skipped)
        return batch
