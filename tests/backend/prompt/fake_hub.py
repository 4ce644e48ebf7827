"""A small stand-in for the Hugging Face hub: the four routes that a snapshot download uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_right"


class FakeHub(ThreadingHTTPServer):
    """Serves ``repositories``: name -> path -> bytes. A name in ``gated`` needs the token for its files."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, dict[str, bytes]], gated: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.gated = gated
        self.served: list[str] = []  # paths of files whose bytes were sent

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub(repositories: dict[str, dict[str, bytes]], gated: set[str]) -> Iterator[FakeHub]:
    with FakeHub(repositories, gated) as hub:
        thread = threading.Thread(target=hub.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._describe("/".join(parts[2:4]), parts[4:])
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), "/".join(parts[4:]))
        else:
            self._fail(404, "EntryNotFound")

    def _describe(self, name: str, rest: list[str]) -> None:
        files = self.server.repositories.get(name)
        if files is None:
            self._fail(404, "RepoNotFound")
        elif rest[1:2] and rest[1] not in ("main", COMMIT):
            self._fail(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self._json([_entry(path, data) for path, data in files.items()])
        else:
            self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": path} for path in files]})

    def _file(self, name: str, path: str) -> None:
        if name in self.server.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._fail(403, "GatedRepo")
        data = self.server.repositories[name][path]
        if self.command == "GET":
            self.server.served.append(path)
        return self._send(200, data, {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": COMMIT})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _digest(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": _digest(data)}
