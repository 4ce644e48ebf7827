"""Workers named on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from router.fleet.discovery.membership import Membership
from router.fleet.worker import WorkerSpec


class StaticSource:
    """Brings its workers once. ``api_key`` is sent to all of them, as SGLang's router does with its own key."""

    def __init__(self, hosts: Sequence[str], api_key: str | None, membership: Membership) -> None:
        self._specs = [WorkerSpec(url=host, api_key=api_key) for host in hosts]
        self._membership = membership

    def start(self) -> None:
        self._membership.become(self._specs)

    def close(self) -> None:
        """Nothing is watched."""
