"""The router: an asyncio service that sends each request to the backend that will answer it first.

Start it with ``launch_router`` (or ``python -m router.launch_router``); embed it with :class:`router.app.Router`.
"""
