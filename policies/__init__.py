"""Placement: which worker gets a request.

Pure decisions, so that the router, replay and the tests run the same code: no I/O, no clock (time is an argument), no
asyncio. The host builds :class:`Candidate` values from a :class:`LeaseBook` and a :class:`RateBook`, calls
``choose``, then ``record`` when it sends and ``observe`` when the answer tells how much was cached.
"""

from policies.cost import Lease, LeaseBook, RateBook
from policies.policy import Candidate, Decision, Policy, RouteRequest, Score, WorkerLoad, WorkerSpeed
from policies.registry import DEFAULT_PREFIX_BYTES, POLICY_NAMES, PolicyOptions, make_policy
from policies.sticky import ASSIGNMENT_MODES

__all__ = [
    "ASSIGNMENT_MODES",
    "DEFAULT_PREFIX_BYTES",
    "POLICY_NAMES",
    "Candidate",
    "Decision",
    "Lease",
    "LeaseBook",
    "Policy",
    "PolicyOptions",
    "RateBook",
    "RouteRequest",
    "Score",
    "WorkerLoad",
    "WorkerSpeed",
    "make_policy",
]
