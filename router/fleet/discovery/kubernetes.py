"""Workers from Kubernetes: the EndpointSlices of Services with given labels, listed once and then watched.

Needs the optional package ``kubernetes``. Its client blocks, so it has a thread of its own; the fleet changes in the
event loop only.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from router.fleet.discovery.membership import DiscoveryError, Membership
from router.fleet.discovery.slices import Slices
from router.fleet.worker import WorkerSpec

log = logging.getLogger(__name__)

WATCH_SECONDS = 60  # the server ends a watch after this; then it is taken up where it ended
RETRY_SECONDS = 2.0
LIST_SECONDS = 10


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """``selector``: labels as in ``app=llm``. ``namespace`` None: all. ``port`` None: the slices' own."""

    selector: Sequence[str] = ()
    namespace: str | None = None
    port: int | None = None


class KubernetesSource:
    """Keeps a membership equal to the ready endpoints."""

    def __init__(self, settings: KubernetesSettings, membership: Membership, api: Any = None) -> None:
        """``api``: a ``DiscoveryV1Api``; without one the pod's own account or the user's kubeconfig is used."""
        self._settings = settings
        self._membership = membership
        self._api = api
        self._slices = Slices(settings.port)
        self._stopped = threading.Event()
        self._watch: Any = None

    def start(self) -> None:
        """Begin to watch. Raises :class:`DiscoveryError` when there is no way to a cluster."""
        self._api = self._api or _connect()
        loop = asyncio.get_running_loop()

        def tell(specs: list[WorkerSpec]) -> None:
            if not self._stopped.is_set():
                loop.call_soon_threadsafe(self._membership.become, specs)

        threading.Thread(target=self._run, args=(tell,), name="kubernetes discovery", daemon=True).start()

    def close(self) -> None:
        """Change the fleet no more. The thread ends with its connection."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.stop()

    def _run(self, tell: Callable[[list[WorkerSpec]], None]) -> None:
        while not self._stopped.is_set():
            try:
                self._follow(tell)
            except Exception as error:  # the client raises of every library that it stands on
                log.warning("Kubernetes cannot be asked for workers, they stay as they are: %s", _short(error))
                self._stopped.wait(RETRY_SECONDS)

    def _follow(self, tell: Callable[[list[WorkerSpec]], None]) -> None:
        """List all slices, then follow their changes until the server forgets where we are (410) or goes away."""
        ask, where = self._api.list_endpoint_slice_for_all_namespaces, []
        if self._settings.namespace:
            ask, where = self._api.list_namespaced_endpoint_slice, [self._settings.namespace]
        labels = ",".join(self._settings.selector)
        listed = ask(*where, label_selector=labels, _request_timeout=LIST_SECONDS)
        self._slices.reset(self._api.api_client.sanitize_for_serialization(listed)["items"])
        tell(self._slices.workers())
        version = listed.metadata.resource_version
        while not self._stopped.is_set():
            self._watch = importlib.import_module("kubernetes.watch").Watch()
            for event in self._watch.stream(
                ask, *where, label_selector=labels, resource_version=version, timeout_seconds=WATCH_SECONDS,
                _request_timeout=WATCH_SECONDS + LIST_SECONDS,  # a server that is gone without a word ends no watch
            ):  # fmt: skip
                self._slices.changed(event["type"], event["raw_object"])
                tell(self._slices.workers())
            version = self._watch.resource_version or version


def _connect() -> Any:
    try:
        config = importlib.import_module("kubernetes.config")
        client = importlib.import_module("kubernetes.client")
    except ImportError:
        raise DiscoveryError("--service-discovery needs a package: pip install 'warmlane[kubernetes]'") from None
    try:
        config.load_config()  # the pod's account inside a cluster, else ~/.kube/config
    except config.ConfigException as error:
        raise DiscoveryError(f"--service-discovery found no way to a cluster: {_short(error)}") from None
    return client.DiscoveryV1Api()


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
