"""Between the HTTP routes and the scheduler: prompts become token ids, tokens become text, requests are tracked.

``Intake`` and ``OutputProcessor`` are pure and serve the offline ``Engine`` too; ``Frontend`` and ``SchedulerClient``
add asyncio and ZMQ for the server.
"""

from backend.frontend.errors import RequestError
from backend.frontend.intake import ChatPrompt, Intake, Limits, Prompt, RequestOptions
from backend.frontend.output import OutputProcessor, StepResult, Update
from backend.frontend.request import FinishReason, RequestState
from backend.frontend.results import generate_result

__all__ = [
    "ChatPrompt",
    "FinishReason",
    "Intake",
    "Limits",
    "OutputProcessor",
    "Prompt",
    "RequestError",
    "RequestOptions",
    "RequestState",
    "StepResult",
    "Update",
    "generate_result",
]
