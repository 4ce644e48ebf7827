"""docs/api.md names every route."""

from __future__ import annotations

from pathlib import Path

from backend.api.app import create_app
from backend.api.context import ServerContext
from backend.config import ServerArgs

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_every_route_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    routes = {resource.canonical for resource in create_app(ServerContext(ServerArgs())).router.resources()}
    assert len(routes) > 20
    assert [route for route in sorted(routes) if route not in text] == []
