"""One request over HTTP: from its body to the last byte of its answer, or to its end before that.

A client that goes away, reads too slowly, or waits too long gives up its place in the queue.
"""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ift_jax import decoding
from ift_jax.decoding import Output
from ift_jax.serving.answer_queue import AnswerQueue, Ticket
from ift_jax.serving.api_error import ApiError
from ift_jax.serving.call_options import CallOptions
from ift_jax.serving.fields import parse_body
from ift_jax.serving.growing_answer import GrowingAnswers, Piece
from ift_jax.serving.served_model import ServedModel

MAX_BODY = 16 << 20  # Bytes.
_GRACE = 5.0  # Seconds in which a client may still take what tells it that its time is over.


class Call(Protocol):
    """What an endpoint makes of a body; `CompletionCall` explains the attributes."""

    kind: str
    stream_kind: str
    id_prefix: str
    strips: bool
    requests: list[decoding.Request]
    options: CallOptions

    def choice(self, piece: Piece, output: Output) -> dict[str, Any]:
        """An answer."""

    def stream_choice(self, piece: Piece, output: Output) -> dict[str, Any]:
        """What is new of an answer."""


class JsonResponse(Response):
    """JSON in ASCII: a text that a client sent may not be valid UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False).encode()


def error_response(error: ApiError) -> JsonResponse:
    """What a client is told about an error."""
    return JsonResponse(error.body, error.status, error.headers)


class AnswerEndpoint:
    """An ASGI application that answers POST requests of one kind."""

    def __init__(
        self,
        make_call: Callable[[dict[str, Any], ServedModel], Call],
        model: ServedModel,
        queue: AnswerQueue,
        text_work: Executor,
        *,
        timeout: float,
    ):
        """Serve an endpoint.

        Args:
            make_call: Reads a body.
            model: The model.
            queue: Answers prompts.
            text_work: One thread for templates and tokenizers, which are not made for several.
            timeout: Seconds that a request may take, from its first byte to its answer.
        """
        self._make_call = make_call
        self._model = model
        self._queue = queue
        self._text_work = text_work
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._n_open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request.

        Raises:
            ApiError: The answer is an error.
        """
        # The queue bounds the prompts; this bounds the bodies that are read, and slow readers.
        if self._n_open >= 2 * self._queue.capacity:
            raise ApiError(429, f"{self._n_open} requests are open; try again later", code="busy")
        self._n_open += 1
        try:
            await self._respond(scope, receive, send)
        finally:
            self._n_open -= 1

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                body = await _body(Request(scope, receive))
                call = await loop.run_in_executor(self._text_work, self._read, body)
        except ClientDisconnect:
            return
        except TimeoutError:
            raise ApiError(408, "the body did not arrive in time", code="timeout") from None

        pending = _Pending(self._queue, call, deadline)
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        answer = asyncio.create_task(self._answer(call, pending, noting_send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait(
                (answer, gone),
                timeout=deadline + _GRACE - loop.time(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                answer.result()  # Raises what it raised.
            elif not (gone.done() or started):
                raise ApiError(504, "the answer took too long", code="timeout")
        finally:
            pending.cancel()
            answer.cancel()
            gone.cancel()
            await asyncio.gather(answer, gone, return_exceptions=True)

    def _read(self, body: bytes) -> Call:
        return self._make_call(parse_body(body), self._model)

    async def _answer(self, call: Call, pending: "_Pending", send: Send) -> None:
        """Send the answer to a request that is in the queue."""
        head = {
            "id": f"{call.id_prefix}-{self._model.created:x}-{next(self._numbers)}",
            "object": call.kind,
            "created": int(time.time()),
            "model": self._model.name,
        }
        if call.options.streaming.wanted:
            await _send_events(self._events(call, pending, head), send)
            return
        outputs = await pending.outputs()
        loop = asyncio.get_running_loop()
        choices = await loop.run_in_executor(self._text_work, _choices, call, self._model, outputs)
        content = {**head, "choices": choices, "usage": _usage(call, outputs)}
        response = JsonResponse(content)
        await send({"type": "http.response.start", "status": 200, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _events(
        self, call: Call, pending: "_Pending", head: dict[str, Any]
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream, one for each part of an answer."""
        head = {**head, "object": call.stream_kind}
        growing = _growing(call, self._model)
        async for place, output in pending.updates():
            for piece in growing[place].update(output):
                yield {**head, "choices": [call.stream_choice(piece, output)]}
        if call.options.streaming.usage:
            outputs = await pending.outputs()
            yield {**head, "choices": [], "usage": _usage(call, outputs)}


class _Pending:
    """The prompts of a request in the queue, and their answers as they come."""

    def __init__(self, queue: AnswerQueue, call: Call, deadline: float):
        """Submit the prompts; raises an ApiError if there is no room for them."""
        loop = asyncio.get_running_loop()
        self._queue = queue
        self._deadline = deadline
        self._changed = asyncio.Event()

        def notify() -> None:
            loop.call_soon_threadsafe(self._changed.set)

        streams = call.options.streaming.wanted
        self._tickets = [Ticket(request, streams, notify) for request in call.requests]
        queue.submit(self._tickets)

    def cancel(self) -> None:
        """Give up what has no answer yet."""
        self._queue.cancel([ticket for ticket in self._tickets if not ticket.done])

    async def outputs(self) -> list[Output]:
        """Wait for all answers."""
        async for _ in self.updates():
            pass
        return [ticket.output for ticket in self._tickets if ticket.output is not None]

    async def updates(self) -> AsyncIterator[tuple[int, Output]]:
        """The answers so far, with the places of their prompts, whenever one has changed.

        Raises:
            ApiError: An answer failed, or the time is over.
        """
        seen: dict[int, Output] = {}
        is_done = False
        while not is_done:
            await self._wait()
            # Read before the outputs, which the other thread writes first.
            is_done = all(ticket.done for ticket in self._tickets)
            for place, ticket in enumerate(self._tickets):
                if ticket.failure is not None:
                    raise ticket.failure
                output = ticket.output
                if output is not None and seen.get(place) is not output:
                    seen[place] = output
                    yield place, output

    async def _wait(self) -> None:
        if all(ticket.done for ticket in self._tickets):
            return
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._changed.wait()
        except TimeoutError:
            raise ApiError(504, "the answer took too long", code="timeout") from None
        self._changed.clear()


async def _body(request: Request) -> bytes:
    """Read a body of JSON within bounds."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"content-type: expected application/json; found {kind[:80]!r}")
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY:
            raise ApiError(413, f"body: expected at most {MAX_BODY} bytes", code="body_too_large")
    return bytes(content)


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_events(events: AsyncIterator[dict[str, Any]], send: Send) -> None:
    """Send server-sent events. An error before the first of them is one of the request."""
    async with contextlib.aclosing(events):  # type: ignore[type-var]
        first = await anext(events)
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_event(json.dumps(first, allow_nan=False), send)
        try:
            async for event in events:
                await _send_event(json.dumps(event, allow_nan=False), send)
        except ApiError as error:
            await _send_event(json.dumps(error.body), send)
        else:
            await _send_event("[DONE]", send)
    await send({"type": "http.response.body", "body": b""})


async def _send_event(data: str, send: Send) -> None:
    body = f"data: {data}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _growing(call: Call, model: ServedModel) -> list[GrowingAnswers]:
    """The answers to each prompt before they begin."""
    n = call.options.n
    stops = call.options.stops(model)
    places = range(len(call.requests))
    return [GrowingAnswers(place * n, n, stops, strip=call.strips) for place in places]


def _choices(call: Call, model: ServedModel, outputs: list[Output]) -> list[dict[str, Any]]:
    """The answers to all prompts."""
    growing = _growing(call, model)
    return [
        call.choice(piece, output)
        for answers, output in zip(growing, outputs, strict=True)
        for piece in answers.update(output)
    ]


def _usage(call: Call, outputs: list[Output]) -> dict[str, int]:
    """The tokens of prompts and answers; a prompt counts once, whatever its answers."""
    n_prompt = sum(len(request.prompt) for request in call.requests)
    n_new = sum(len(one.ids) for output in outputs for one in output.completions)
    if call.options.options.n < call.options.n:  # Greedy answers, all the same.
        n_new *= call.options.n
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_new,
        "total_tokens": n_prompt + n_new,
    }
