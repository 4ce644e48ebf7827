"""What placement knows of time: the work in flight, the learned speeds, and the cost made of both."""

from policies.cost.leases import Lease, LeaseBook
from policies.cost.rates import RateBook
from policies.cost.score import score

__all__ = ["Lease", "LeaseBook", "RateBook", "score"]
