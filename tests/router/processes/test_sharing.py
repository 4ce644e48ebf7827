"""What processes tell each other: placements, requests handed over, and metrics added up."""

import asyncio
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from policies import make_policy
from policies.policy import Candidate, Policy, RouteRequest
from router.config import AdmissionSettings, ConfigError, RouterConfig
from router.errors import Refusal
from router.fleet.worker import WorkerSpec
from router.http.message import Reply, Request
from router.processes.channel import HINTS_BYTES, Channel
from router.processes.data_parts import part_of, worker_part
from router.processes.messages import Drained, Suspect
from router.processes.metrics_sum import Summed
from router.processes.port import Reservation
from router.processes.shared_policy import SharedPolicy

TEXT = b"a long conversation about the weather of all towns " * 8


class Peer:
    """One end of a channel and what it heard."""

    def __init__(self):
        self.heard, self.placed, self.ended = [], [], asyncio.Event()
        self.channel = Channel(self.heard.append, self.placed.append, self.answer, self.ended.set)

    async def answer(self, request: Request) -> Reply:
        if request.path == "/refused":
            raise Refusal(409, "no")
        if request.path == "/broken":
            raise ZeroDivisionError
        return Reply(200, b"you sent " + request.body, [(b"X-Peer", request.remote.encode())])


async def pair() -> tuple[Peer, Peer]:
    one, other = Peer(), Peer()
    for peer, line in zip((one, other), socket.socketpair(), strict=True):
        line.setblocking(False)
        await peer.channel.connect(line)
    return one, other


def request(path: str, body: bytes = b"") -> Request:
    made = Request("POST", path, "1.1", [(b"Host", b"x")], {"host": "x"}, "10.0.0.9", "http")
    made.body = body
    return made


async def test_messages_come_in_order_and_whole():
    one, other = await pair()
    sent = [Suspect("http://" + "x" * (size * 1000)) for size in range(40)]
    for message in sent:
        one.channel.send(message)
    assert (await other.channel.ask(request("/"))).status == 200
    assert (await one.channel.ask(request("/"))).status == 200
    assert other.heard == sent
    one.channel.close()
    await other.ended.wait()


async def test_requests_are_answered_by_the_other_side():
    one, other = await pair()
    replies = await asyncio.gather(*(one.channel.ask(request("/", b"%d" % number)) for number in range(20)))
    assert [reply.body for reply in replies] == [b"you sent %d" % number for number in range(20)]
    assert replies[0].pairs == [(b"X-Peer", b"10.0.0.9")]
    assert (await one.channel.ask(request("/refused"))).status == 409
    assert (await one.channel.ask(request("/broken"))).status == 500
    other.channel.close()
    await one.ended.wait()


async def test_who_asks_a_process_that_ends_is_told():
    one, other = await pair()
    asking = asyncio.create_task(one.channel.ask(request("/")))
    await asyncio.sleep(0)
    other.channel.close()
    with pytest.raises(Refusal) as refusal:
        await asking
    assert refusal.value.status == 503
    await one.ended.wait()
    with pytest.raises(Refusal):
        await one.channel.ask(request("/"))


async def test_placements_are_dropped_for_a_process_that_does_not_read():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    peer = Peer()
    await peer.channel.connect(ours)
    for _ in range(100):
        peer.channel.send_placements(b"x" * 2**20)
    peer.channel.send(Drained())  # messages never are
    received = 0
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    peer.channel.close()
    while chunk := await loop.sock_recv(theirs, 2**20):
        received += len(chunk)
    assert HINTS_BYTES < received < HINTS_BYTES + 4 * 2**20
    theirs.close()


async def test_what_one_process_placed_the_others_remember():
    sent: list[bytes] = []
    flushed = asyncio.Event()

    def send(batch: bytes) -> None:
        sent.append(batch)
        flushed.set()

    policies = [SharedPolicy(make_policy("cache_aware", seed=index), send) for index in range(2)]
    route = RouteRequest(text=TEXT, prompt_tokens=100, model="m", namespace="tenant")
    for _ in range(3):
        policies[0].record(route, "b", 1.0)
    await flushed.wait()
    assert len(sent) == 1
    candidates = [Candidate("a"), Candidate("b"), Candidate("c")]
    policies[1].told(sent[0], {"b": 1}.get, 1.0)
    decision = policies[1].choose(route, candidates, 1.1)
    assert (decision.worker, decision.reason) == ("b", "warm")
    assert decision.cached_tokens > 50
    assert policies[1].choose(RouteRequest(text=TEXT, prompt_tokens=100), candidates, 1.1).cached_tokens == 0


async def test_placements_on_workers_that_are_gone_are_not_remembered():
    sent: list[bytes] = []
    one, other = (SharedPolicy(make_policy("cache_aware", seed=1), sent.append) for _ in range(2))
    one.record(RouteRequest(text=TEXT, prompt_tokens=100), "gone", 1.0)
    one.flush()
    other.told(sent[0], {}.get, 1.0)
    assert other.stats() == make_policy("cache_aware", seed=1).stats()


async def test_policies_that_remember_nothing_send_nothing():
    sent: list[bytes] = []
    policy: Policy = SharedPolicy(make_policy("random"), sent.append)
    policy.record(RouteRequest(text=TEXT), "a", 1.0)
    policy.flush()  # type: ignore[attr-defined]
    assert sent == []


EXPOSITION = """# HELP hits_total Hits
# TYPE hits_total counter
hits_total{worker="a"} 3.0
# HELP smg_worker_pool_size Workers in the fleet
# TYPE smg_worker_pool_size gauge
smg_worker_pool_size 4.0
# HELP busy Busy
# TYPE busy gauge
busy 2.0
# HELP wait_seconds Wait
# TYPE wait_seconds histogram
wait_seconds_bucket{le="1.0"} 1.0
wait_seconds_bucket{le="+Inf"} 2.0
wait_seconds_count 2.0
wait_seconds_sum 5.0
"""


def test_metrics_are_added_up():
    whole = Summed()
    for _ in range(2):
        whole.add(EXPOSITION)
    whole.add(EXPOSITION, counters_only=True)  # of a process that ended
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(whole.text().decode())
        for sample in family.samples
    }
    assert values == {
        ("hits_total", "a"): 9.0,
        ("smg_worker_pool_size",): 4.0,
        ("busy",): 4.0,
        ("wait_seconds_bucket", "1.0"): 3.0,
        ("wait_seconds_bucket", "+Inf"): 6.0,
        ("wait_seconds_count",): 6.0,
        ("wait_seconds_sum",): 15.0,
    }


@pytest.mark.parametrize("limit", [None, 4, 5, 7, 64])
def test_the_parts_of_a_workers_own_limit_add_up_to_it(limit):
    spec = WorkerSpec(url="a:1", max_concurrent_requests=limit)
    parts = [worker_part(spec, index, 4).max_concurrent_requests for index in range(4)]
    assert parts == [None] * 4 if limit is None else sum(parts) == limit and 0 not in parts


@pytest.mark.parametrize("limit", [4, 5, 7, 64])
def test_the_parts_of_a_limit_add_up_to_it(limit):
    settings = AdmissionSettings(requests=limit, queue_size=limit, request_rate=limit)
    parts = [part_of(settings, index, 4) for index in range(4)]
    assert sum(part.requests or 0 for part in parts) == limit
    assert sum(part.queue_size for part in parts) == limit
    assert sum(part.request_rate or 0 for part in parts) == pytest.approx(limit)
    assert all(part.requests for part in parts)
    assert not part_of(AdmissionSettings(), 0, 4).any


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"workers": 4, "max_concurrent_requests": 3}, "--max-concurrent-requests 3"),
        ({"workers": 2, "record_trace": "t.jsonl"}, "--record-trace"),
        ({"workers": 2, "shadow_policy": "random"}, "--shadow-policy"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        RouterConfig.from_values(values)


def test_a_port_on_which_another_router_shares_is_taken():
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            Reservation("127.0.0.1", port)
    held = Reservation("127.0.0.1", port)
    assert held.port == port
    held.close()
