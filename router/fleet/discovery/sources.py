"""The sources that a configuration asks for."""

from __future__ import annotations

from typing import Protocol

from router.config import RouterConfig
from router.fleet.discovery.file import FileSource
from router.fleet.discovery.kubernetes import KubernetesSettings, KubernetesSource
from router.fleet.discovery.membership import Membership
from router.fleet.discovery.static import StaticSource
from router.fleet.registry import Registry


class Source(Protocol):
    """Brings workers into the fleet from :meth:`start` on."""

    def start(self) -> None: ...

    def close(self) -> None: ...


def make_sources(config: RouterConfig, registry: Registry) -> list[Source]:
    """One source for each kind of discovery that was asked for."""
    sources: list[Source] = []
    if config.router_hosts:
        sources.append(StaticSource(config.router_hosts, config.api_key, Membership(registry, "--router-hosts")))
    if config.workers_file:
        sources.append(FileSource(config.workers_file, Membership(registry, config.workers_file)))
    if config.service_discovery:
        settings = KubernetesSettings(
            config.selector, config.service_discovery_namespace, config.service_discovery_port
        )
        sources.append(KubernetesSource(settings, Membership(registry, "Kubernetes")))
    return sources
