"""What Kubernetes' EndpointSlices say: which addresses take requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router.fleet.worker import WorkerSpec

SERVICE_LABEL = "kubernetes.io/service-name"


class Slices:
    """The slices of a watch by name, and the workers that they add up to.

    A slice is the plain object of the API (``discovery.k8s.io/v1``), with keys as in JSON.
    """

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._slices: dict[tuple[str, str], list[str]] = {}

    def reset(self, items: Iterable[Mapping[str, Any]]) -> None:
        """These are all slices."""
        self._slices.clear()
        for item in items:
            self.changed("ADDED", item)

    def changed(self, kind: str, item: Mapping[str, Any]) -> None:
        """One event of the watch."""
        meta = item.get("metadata") or {}
        name = (meta.get("namespace", ""), meta.get("name", ""))
        if kind == "DELETED":
            self._slices.pop(name, None)
        elif kind in ("ADDED", "MODIFIED"):
            self._slices[name] = list(self._addresses(item))

    def workers(self) -> list[WorkerSpec]:
        """One worker for each address that is ready, however many slices name it."""
        urls = dict.fromkeys(url for name in sorted(self._slices) for url in self._slices[name])
        return [WorkerSpec(url=url) for url in urls]

    def _addresses(self, item: Mapping[str, Any]) -> Iterable[str]:
        port = self._port or _port(item.get("ports") or [])
        if port is None or item.get("addressType") == "FQDN":
            return
        for endpoint in item.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            # Absent means ready, as the API says. A pod that is terminating is not ready.
            if conditions.get("ready") is False or conditions.get("terminating"):
                continue
            for address in endpoint.get("addresses") or []:
                yield f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _port(ports: Iterable[Mapping[str, Any]]) -> int | None:
    """The port named ``http``, else the first one."""
    numbers = {port.get("name") or "": port.get("port") for port in ports if port.get("port")}
    return numbers.get("http") or next(iter(numbers.values()), None)
