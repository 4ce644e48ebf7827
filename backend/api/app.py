"""The aiohttp application: routes, authorization, and errors as JSON."""

from __future__ import annotations

import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from backend.api import (
    chat,
    classify,
    completions,
    embeddings,
    management,
    messages,
    native,
    openai,
    parse,
    profiling,
    rerank,
    responses,
    score,
    tokens,
)
from backend.api.context import CONTEXT, ServerContext
from backend.api.errors import CLIENT_CLOSED_REQUEST, error_response
from backend.api.keys import authorize
from backend.frontend.errors import RequestError

logger = logging.getLogger(__name__)


def create_app(context: ServerContext) -> web.Application:
    """All routes over one context."""
    app = web.Application(
        middlewares=[_errors_as_json, authorize], client_max_size=context.args.max_body_bytes, logger=logger
    )
    app[CONTEXT] = context
    app.add_routes(
        [
            web.post("/generate", native.generate),
            web.put("/generate", native.generate),
            web.post("/v1/chat/completions", chat.chat_completions),
            web.post("/v1/completions", completions.completions),
            web.post("/v1/messages", messages.messages),
            web.post("/v1/messages/count_tokens", messages.count_tokens),
            web.post("/v1/responses", responses.responses),
            web.post("/v1/embeddings", embeddings.embeddings),
            web.post("/encode", embeddings.encode),
            web.post("/v1/score", score.score),
            web.post("/v1/rerank", rerank.rerank),
            web.post("/rerank", rerank.rerank_results),
            web.post("/v2/rerank", rerank.rerank_results),
            web.post("/v1/classify", classify.classify),
            web.post("/classify", classify.classify),
            web.post("/tokenize", tokens.tokenize),
            web.post("/v1/tokenize", tokens.tokenize),
            web.post("/detokenize", tokens.detokenize),
            web.post("/v1/detokenize", tokens.detokenize),
            web.post("/parse_function_call", parse.parse_function_call),
            web.post("/separate_reasoning", parse.separate_reasoning),
            web.get("/v1/models", openai.list_models),
            web.get("/v1/models/{model:.+}", openai.show_model),
            web.get("/health", management.health),
            web.get("/ready", management.health),
            web.get("/ping", management.health),
            web.get("/health_generate", management.health_generate),
            web.get("/get_model_info", management.model_info),
            web.get("/model_info", management.model_info),
            web.get("/get_server_info", management.server_info),
            web.get("/server_info", management.server_info),
            web.get("/v1/loads", management.loads),
            web.get("/get_load", management.get_load),
            web.get("/flush_cache", management.flush_cache),
            web.post("/flush_cache", management.flush_cache),
            web.post("/abort_request", management.abort_request),
            web.post("/pause_generation", management.pause_generation),
            web.post("/continue_generation", management.continue_generation),
            web.post("/start_profile", profiling.start_profile),
            web.post("/stop_profile", profiling.stop_profile),
            web.get("/metrics", management.metrics),
        ]
    )
    return app


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error, request.path)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        response = error_response(_http_error(request, error), request.path)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except ConnectionError:
        return web.Response(status=CLIENT_CLOSED_REQUEST)  # the client is gone: nobody reads this
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        failed = RequestError("Internal error; the server's log says more.", HTTPStatus.INTERNAL_SERVER_ERROR)
        return error_response(failed, request.path)


def _http_error(request: web.Request, error: web.HTTPException) -> RequestError:
    where = f"{request.method} {request.path}"
    if isinstance(error, web.HTTPNotFound):
        message = f"There is no route {where}."
    elif isinstance(error, web.HTTPMethodNotAllowed):
        message = f"{where} is not allowed; use {', '.join(sorted(error.allowed_methods))}."
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        limit = request.app[CONTEXT].args.max_body_bytes
        message = f"The request body is larger than {limit} bytes (--max-body-bytes)."
    else:
        message = error.reason
    return RequestError(message, error.status)
