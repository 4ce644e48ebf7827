"""Seeded traffic in shapes that matter to placement: chats that grow, and system prompts of very unequal fame."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, count
from random import Random

from policies.sim.request import SimRequest


@dataclass(frozen=True, slots=True)
class MultiTurn:
    """Conversations under shared system prompts; each turn sends the whole history, answers included."""

    system_prompts: int = 16
    system_tokens: int = 1500
    turns: tuple[int, int] = (6, 14)
    user_tokens: tuple[int, int] = (30, 150)
    answer_tokens: tuple[int, int] = (60, 240)
    think_seconds: float = 12.0  # mean pause after an answer
    conversations_per_s: float = 1.6

    def requests(self, number: int, seed: int) -> list[SimRequest]:
        """The first ``number`` requests by arrival."""
        rng = Random(seed)
        segments = count(self.system_prompts)
        start, check = 0.0, number
        requests: list[SimRequest] = []
        while True:
            start += rng.expovariate(self.conversations_per_s)
            requests += self._conversation(start, segments, rng)
            if len(requests) >= check:
                requests.sort(key=_arrival)
                if requests[number - 1].arrival <= start:  # nobody who comes later is among the first
                    break
                check = len(requests) + number // 10 + 1  # sorting for each conversation would take most of the time
        return requests[:number]

    def _conversation(self, time: float, segments: count[int], rng: Random) -> list[SimRequest]:
        names, sizes = [rng.randrange(self.system_prompts)], [self.system_tokens]
        session = f"conversation-{next(segments)}"
        requests = []
        for _ in range(rng.randint(*self.turns)):
            names.append(next(segments))
            sizes.append(rng.randint(*self.user_tokens))
            output, answer = rng.randint(*self.answer_tokens), next(segments)
            requests.append(SimRequest(time, tuple(names), tuple(sizes), output, answer, session))
            names.append(answer)
            sizes.append(output)
            time += output * 0.015 + 0.2 + rng.expovariate(1 / self.think_seconds)
        return requests


@dataclass(frozen=True, slots=True)
class HotSpot:
    """Single questions under long system prompts whose fame follows Zipf's law; arrivals are Poisson."""

    system_prompts: int = 64
    system_tokens: tuple[int, int] = (4000, 12000)
    exponent: float = 1.2
    user_tokens: tuple[int, int] = (100, 1000)
    answer_tokens: tuple[int, int] = (50, 250)
    requests_per_s: float = 9.0

    def requests(self, number: int, seed: int) -> list[SimRequest]:
        """``number`` requests by arrival."""
        rng = Random(seed)
        sizes = [rng.randint(*self.system_tokens) for _ in range(self.system_prompts)]
        weights = list(accumulate(1.0 / rank**self.exponent for rank in range(1, self.system_prompts + 1)))
        names = range(self.system_prompts)
        time = 0.0
        requests = []
        for index in range(number):
            time += rng.expovariate(self.requests_per_s)
            (system,) = rng.choices(names, cum_weights=weights)
            question = (self.system_prompts + index, rng.randint(*self.user_tokens))
            requests.append(
                SimRequest(
                    time,
                    (system, question[0]),
                    (sizes[system], question[1]),
                    rng.randint(*self.answer_tokens),
                    session=f"tenant-{system}",
                )
            )
        return requests


def _arrival(request: SimRequest) -> float:
    return request.arrival
