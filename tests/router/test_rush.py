import asyncio
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from router.http.rush import Rush
from tests.router.conftest import running
from tests.router.fake_backend import FakeBackend

pieces = st.lists(st.integers(0, 3), max_size=12)  # how many pieces of work come in each turn


@given(pieces, st.integers(1, 4))
def test_everything_is_begun_once_in_order_and_never_too_much_in_a_turn(turns, at_once):
    async def rushed() -> list[list[int]]:
        rush = Rush(asyncio.get_running_loop(), at_once)
        begun: list[list[int]] = []
        number = 0
        for count in [*turns, *[0] * sum(turns)]:
            begun.append([])
            for _ in range(count):
                rush.begin(lambda n=number: begun[-1].append(n))
                number += 1
            await asyncio.sleep(0)
        return begun

    begun = asyncio.run(rushed())
    assert [n for turn in begun for n in turn] == list(range(sum(turns)))
    assert all(len(turn) <= 2 * at_once for turn in begun)  # what was left over of one turn, and its own


async def test_a_crowd_is_served_and_those_that_leave_at_once_are_not():
    async with running(FakeBackend()) as fleet:

        async def leave() -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", fleet.router.port)
            body = b'{"prompt":"gone"}'
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            writer.transport.abort()

        async def ask() -> int:
            async with fleet.client.post("/v1/completions", json={"prompt": "here"}) as answer:
                return answer.status

        answers = await asyncio.gather(*[ask() for _ in range(40)], *[leave() for _ in range(20)])
        assert answers[:40] == [200] * 40
        with suppress(TimeoutError):
            await asyncio.wait_for(fleet.router.inflight.drained(), 5)
        assert fleet.router.under_way == 0
