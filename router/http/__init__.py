"""HTTP/1.1 as bytes on sockets: the server side towards clients, the pool of connections towards backends.

Framing and limits are judged here and nowhere else: what comes out of this package is one whole request or one
answer's bytes, and nothing ambiguous is ever passed on.
"""

from router.http.message import Reply, Request

__all__ = ["Reply", "Request"]
