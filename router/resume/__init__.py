"""A stream that was cut after its first token goes on at another backend (``--resume-streams``).

Pure: :func:`plan` says whether a request can be continued at all, :class:`Transcript` reads what went by, makes the
request that continues it, and fits the new answer to the old one, so that the client sees one stream.
"""

from router.resume.events import Events
from router.resume.plan import Dialect, Plan, Refused, plan
from router.resume.transcript import Transcript, make_transcript

__all__ = ["Dialect", "Events", "Plan", "Refused", "Transcript", "make_transcript", "plan"]
