"""A port that several processes will listen on, held from the start so that nobody else gets it."""

from __future__ import annotations

import os
import socket


class Reservation:
    """Binds ``host``:``port`` without listening; ``port`` tells which one it is. Raises ``OSError``."""

    def __init__(self, host: str, port: int) -> None:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            if port:
                _bound(family, kind, protocol, address, shared=False).close()  # another router may not share it
            self._socket = _bound(family, kind, protocol, address, shared=True)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {reason}") from error
        self.port = int(self._socket.getsockname()[1])

    def close(self) -> None:
        self._socket.close()


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...], shared: bool) -> socket.socket:
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
