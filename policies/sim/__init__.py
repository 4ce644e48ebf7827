"""A discrete-event model of engines and of a fleet behind a router. Time is an argument; nothing sleeps.

One model for replay, the shadow policy and the simulated backend: :class:`SimEngine` is one engine with a prefix cache,
:func:`simulate` drives a fleet of them with the policies that the router runs.
"""

from policies.sim.cache import PrefixCache
from policies.sim.engine import EngineSpec, Event, EventKind, SimEngine
from policies.sim.fleet import Result, simulate
from policies.sim.oracle import GreedyOracle
from policies.sim.request import SegmentText, SimRequest
from policies.sim.routing import PolicyRouter, SimRouter

__all__ = [
    "EngineSpec",
    "Event",
    "EventKind",
    "GreedyOracle",
    "PolicyRouter",
    "PrefixCache",
    "Result",
    "SegmentText",
    "SimEngine",
    "SimRequest",
    "SimRouter",
    "simulate",
]
