"""A model behind an HTTP interface like OpenAI's, for synthesis.

A text prompt goes to /completions, messages go to /chat/completions. `ift serve`, vLLM, SGLang,
llama.cpp's server and OpenAI have both or one of them. Only the standard library is needed.
"""

import concurrent.futures
import http.client
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_object, parse_json
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.synthesis.answers_so_far import AnswersSoFar
from ift_jax.synthesis.generator import Interrupted, TextCompletion, TextRequest

KEY_VARIABLE = "OPENAI_API_KEY"
MAX_ATTEMPTS = 6  # With the pauses between them, about half a minute.
# Answers that cannot be read. A proxy's page or a body that was cut off may pass, a wrong address
# will not, and should not take half a minute to be named.
MAX_UNREADABLE = 3
_MAX_PAUSE = 60.0  # Seconds; a server may ask for less or more than the next pause.
_SHOWN = 200  # Characters of a server's complaint that are shown.
# Overloaded or restarting servers; any other status will be the same at the next attempt.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}


class EndpointCompleter:
    """Answers requests with a model behind an HTTP interface like OpenAI's."""

    def __init__(
        self,
        url: str,
        model: str,
        *,
        concurrency: int = 8,
        timeout: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
        stopped: Stopped = never,
    ):
        """Check the address; nothing is asked yet.

        Args:
            url: The address up to "/v1".
            model: The model's name there.
            concurrency: Requests that are under way at once.
            timeout: Seconds to wait for an answer.
            sleep: Waits between two attempts.
            stopped: Whether to begin no further request.

        Raises:
            UserError: The address is none of HTTP.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError(
                f"--endpoint {url}: expected an address such as http://localhost:8000/v1"
            )
        self._url = url.rstrip("/")
        self._model = model
        self._concurrency = concurrency
        self._timeout = timeout
        self._sleep = sleep
        self._stopped = stopped

    def settings(self) -> dict[str, Any]:
        # The same model may have another address after a restart.
        return {"endpoint model": self._model}

    def complete(
        self, requests: Sequence[TextRequest], so_far: AnswersSoFar | None = None
    ) -> list[list[TextCompletion]]:
        known = dict(so_far.known) if so_far else {}
        missing = [place for place in range(len(requests)) if place not in known]
        with concurrent.futures.ThreadPoolExecutor(self._concurrency) as pool:
            asked = {
                place: pool.submit(self._answer, place, requests[place], so_far)
                for place in missing
            }
            try:
                answers = known | {place: answer.result() for place, answer in asked.items()}
            except BaseException:
                for answer in asked.values():
                    answer.cancel()  # What has not begun would fail likewise, slowly.
                raise
        return [answers[place] for place in range(len(requests))]

    def _answer(
        self, place: int, request: TextRequest, so_far: AnswersSoFar | None
    ) -> list[TextCompletion]:
        if self._stopped():
            raise Interrupted
        body, path = self._body(request)
        where = f"--endpoint {self._url}{path}"
        answers = self._post(path, body, lambda content: _completions(content, request.n, where))
        if so_far:
            so_far.add(place, answers)
        return answers

    def _body(self, request: TextRequest) -> tuple[dict[str, Any], str]:
        """Return what is sent, and the path that it is sent to."""
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "n": request.n,
        }
        if request.repetition_penalty != 1:
            body["repetition_penalty"] = request.repetition_penalty  # Not known to OpenAI's own.
        if request.stop:
            body["stop"] = list(request.stop)
        if isinstance(request.prompt, str):
            if request.log_prob:
                body["logprobs"] = 1
            return body | {"prompt": request.prompt}, "/completions"
        if request.log_prob:
            body["logprobs"] = True
        messages = [{"role": turn.role, "content": turn.content} for turn in request.prompt]
        return body | {"messages": messages}, "/chat/completions"

    def _post(
        self, path: str, body: Mapping[str, Any], read: Callable[[bytes], list[TextCompletion]]
    ) -> list[TextCompletion]:
        """Send a request, again after a failure that may pass; raise a UserError in the end.

        `read` makes the answer of a body, and raises a UserError for one that it cannot read.
        """
        where = f"--endpoint {self._url}{path}"
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        content = json.dumps(body).encode()
        why = ""
        n_unreadable = 0
        for attempt in range(MAX_ATTEMPTS):
            pause = float(2**attempt)
            try:
                message = urllib.request.Request(self._url + path, content, headers)
                with urllib.request.urlopen(message, timeout=self._timeout) as response:
                    return read(response.read())
            except UserError:
                n_unreadable += 1
                if n_unreadable == MAX_UNREADABLE:
                    raise
            except urllib.error.HTTPError as error:
                why = f"status {error.code}: {_complaint(error)}"
                if error.code not in _PASSING:
                    raise UserError(f"{where}: {why}") from None
                pause = _retry_after(error.headers.get("Retry-After"), pause)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                why = str(getattr(reason, "strerror", None) or reason) or type(error).__name__
            if attempt + 1 < MAX_ATTEMPTS:
                self._sleep(pause)
        raise UserError(
            f"{where}: no answer after {MAX_ATTEMPTS} attempts ({why}); expected a server with "
            "OpenAI's interface, such as ift serve"
        )


def _retry_after(header: str | None, pause: float) -> float:
    """Return the seconds that a server asks to wait; it may name a date instead."""
    if header and header.strip().isdecimal():
        return min(float(header), _MAX_PAUSE)
    return pause


def _complaint(error: urllib.error.HTTPError) -> str:
    """Return the message of an error's body, or the body's beginning."""
    text = error.read().decode("utf-8", "replace")
    try:
        body = parse_json(text, "body")
        of_error = body.get("error", body) if isinstance(body, dict) else body
        if isinstance(of_error, dict):
            text = str(of_error.get("message", text))
    except UserError:
        pass  # No JSON, such as a proxy's page: its beginning says enough.
    return " ".join(text.split())[:_SHOWN]


def _completions(content: bytes, n: int, where: str) -> list[TextCompletion]:
    answer = json_object(parse_json(content, where), where)
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != n:
        raise UserError(f"{where}: expected {n} choices; got {json.dumps(answer)[:80]}")
    return [_completion(choice, where) for choice in choices]


def _completion(choice: Any, where: str) -> TextCompletion:
    fields = json_object(choice, where)
    message = fields.get("message")
    holder, field = (message, "content") if isinstance(message, dict) else (fields, "text")
    text = holder.get(field)
    if text is None and field in holder:
        text = ""  # Only a thought was written, or a call: the same seed would give it again.
    if not isinstance(text, str):
        raise UserError(f"{where}: expected a choice with a text; got {json.dumps(fields)[:80]}")
    log_probs = _log_probs(fields.get("logprobs"))
    total = sum(log_probs) if log_probs else None
    text = text.encode(errors="replace").decode()  # JSON can spell half a surrogate pair.
    return TextCompletion(text, str(fields.get("finish_reason")), total, len(log_probs))


def _log_probs(field: Any) -> list[float]:
    """Return each token's log-probability from either form of the field; [] if there is none."""
    if not isinstance(field, dict):
        return []
    tokens = field.get("token_logprobs")
    if tokens is None:
        content = field.get("content")
        of_tokens = content if isinstance(content, list) else []
        tokens = [token.get("logprob") for token in of_tokens if isinstance(token, dict)]
    if not isinstance(tokens, list):
        return []
    return [float(value) for value in tokens if isinstance(value, int | float)]
