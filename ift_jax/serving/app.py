"""The routes of the server, as an ASGI application."""

from concurrent.futures import Executor
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ift_jax.serving.answer_queue import AnswerQueue
from ift_jax.serving.api_error import ApiError
from ift_jax.serving.chat_call import ChatCall
from ift_jax.serving.completion_call import CompletionCall
from ift_jax.serving.http_answer import AnswerEndpoint, JsonResponse, error_response
from ift_jax.serving.served_model import ServedModel


def make_app(
    model: ServedModel, queue: AnswerQueue, text_work: Executor, *, timeout: float
) -> Starlette:
    """Make the application.

    Args:
        model: What is served.
        queue: Answers its prompts.
        text_work: As for `AnswerEndpoint`.
        timeout: Seconds that a request may take.
    """

    async def health(request: Request) -> Response:
        waiting, running = queue.n_waiting, queue.n_running
        return JsonResponse({"status": "ok", "waiting": waiting, "running": running})

    async def models(request: Request) -> Response:
        return JsonResponse({"object": "list", "data": [model.description]})

    async def one_model(request: Request) -> Response:
        model.check_name(request.path_params["name"])
        return JsonResponse(model.description)

    def answers(make_call: Any) -> AnswerEndpoint:
        return AnswerEndpoint(make_call, model, queue, text_work, timeout=timeout)

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/completions", answers(CompletionCall), methods=["POST"]),
            Route("/v1/chat/completions", answers(ChatCall), methods=["POST"]),
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
    )


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:200]!r}"
    response = error_response(ApiError(error.status_code, f"{what}: {error.detail}"))
    response.headers.update(error.headers or {})
    return response
