"""`/v1/chat/completions`: the body of a request, and the answers to it."""

import re
from typing import Any

from ift_jax.decoding import Output, Request
from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind
from ift_jax.serving.api_error import ApiError, invalid
from ift_jax.serving.call_options import MAX_TOP, read_options
from ift_jax.serving.fields import Fields
from ift_jax.serving.growing_answer import Piece
from ift_jax.serving.log_prob_fields import chat_logprobs
from ift_jax.serving.served_model import ServedModel
from ift_jax.text.prompts import UnwrittenError
from ift_jax.text.records import TEXT_ROLE
from ift_jax.text.rows.parse_record import parse_record

# Fields with what changes nothing, and why nothing else is supported.
_UNSUPPORTED: dict[str, tuple[list[Any], str]] = {
    "audio": ([], "answers are texts"),
    "function_call": (["none", "auto"], "expected tools"),
    "functions": ([[]], "expected tools"),
    "modalities": ([["text"]], "answers are texts"),
    "parallel_tool_calls": ([True], "the model decides how many tools it calls"),
    "prediction": ([], "answers are generated token by token"),
    "reasoning_effort": ([], "expected an option of the template in chat_template_kwargs"),
    "response_format": ([{"type": "text"}], "answers are free texts"),
    "store": ([False], "nothing is stored"),
    "verbosity": ([], "the model decides how much it writes"),
    "web_search_options": ([], "nothing is searched"),
}


class ChatCall:
    """A request for answers to a conversation; its attributes are those of `CompletionCall`."""

    kind = "chat.completion"
    stream_kind = "chat.completion.chunk"
    id_prefix = "chatcmpl"
    strips = True

    def __init__(self, body: dict[str, Any], model: ServedModel):
        """Read a body.

        Args:
            body: The JSON object.
            model: The model that answers.

        Raises:
            ApiError: The body is wrong, or asks for what the server or the model does not have.
        """
        fields = Fields(body)
        self._model = model
        for name, (allowed, why) in _UNSUPPORTED.items():
            fields.only(name, allowed, why)
        wanted = fields.flag("logprobs")
        n_top = fields.whole("top_logprobs", 0, MAX_TOP)
        if n_top and not wanted:
            raise invalid("top_logprobs", "expected logprobs to be true")
        self.options = read_options(
            fields,
            model,
            max_tokens=("max_completion_tokens", "max_tokens"),
            least_tokens=1,
            logprobs=(n_top or 0) if wanted else None,
        )
        messages = _messages(fields, model)
        row = {"messages": messages}
        tools = fields.take("tools", [])
        if not isinstance(tools, list):
            raise invalid("tools", f"expected a list, found {json_kind(tools)}")
        choices = ["auto"] if tools else ["auto", "none"]
        fields.only("tool_choice", choices, "the model decides whether it calls a tool")
        if tools:
            row["tools"] = tools
        if options := fields.take("chat_template_kwargs"):
            row["chat_template_kwargs"] = options
            _check_template_options(options, model)
        fields.finish()
        ids = _prompt_ids(row, model)
        n_new = model.answer_length(ids, self.options.max_tokens, model.chat_tokens, "messages")
        self.requests: list[Request] = [self.options.request(model, ids, n_new, "messages")]

    def choice(self, piece: Piece, output: Output) -> dict[str, Any]:
        """An answer.

        Args:
            piece: All of it.
            output: That of the conversation.
        """
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        return {"index": piece.number, "message": message, **self._more(piece)}

    def stream_choice(self, piece: Piece, output: Output) -> dict[str, Any]:
        """What is new of an answer."""
        delta = {"role": "assistant"} if piece.is_first else {}
        if piece.text or piece.is_first:
            delta["content"] = piece.text
        return {"index": piece.number, "delta": delta, **self._more(piece)}

    def _more(self, piece: Piece) -> dict[str, Any]:
        found = None
        if piece.logprobs is not None:
            found = chat_logprobs(self._model, piece.logprobs)
        return {"logprobs": found, "finish_reason": piece.finish_reason}


def _messages(fields: Fields, model: ServedModel) -> list[Any]:
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else json_kind(messages)
        raise invalid("messages", f"expected a list of messages, found {found}")
    last = messages[-1]
    if isinstance(last, dict) and last.get("role") == "assistant":
        raise invalid(
            f"messages[{len(messages) - 1}].role",
            "expected a turn to answer; an assistant's turn is not continued",
        )
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            continue  # What reads the record says so.
        if message.get("role") == TEXT_ROLE:
            raise invalid(f"messages[{i}].role", f"{TEXT_ROLE!r} has no turns; expected a prompt")
        if isinstance(message.get("content"), str):
            model.check_text_length(message["content"], "messages")
    return messages


def _check_template_options(options: Any, model: ServedModel) -> None:
    """Refuse an option that the template does not read, because it would be ignored."""
    if not isinstance(options, dict):
        return  # What reads the record says so.
    source = model.formatter.template_source
    for name in options:
        if not re.search(rf"\b{re.escape(name)}\b", source):
            raise invalid("chat_template_kwargs", f"the model's template does not read {name!r}")


def _prompt_ids(row: dict[str, Any], model: ServedModel) -> list[int]:
    """The ids of a conversation in the model's template, which must write all of it."""
    try:
        record = parse_record(row, "request", prompt_only=True)
        if record.unread:
            names = ", ".join(record.unread)
            raise ApiError(400, f"not supported: {names}", param=record.unread[0])
        return model.formatter.prompt(record).tolist()
    except UnwrittenError as error:
        # What follows is how to train on such a record.
        message = str(error).removeprefix("request: ").partition("; remove it")[0]
        raise ApiError(400, message, param="messages", code="unsupported_parameter") from None
    except UserError as error:
        message = str(error).removeprefix("request: ")
        param = "tools" if message.startswith("field 'tools'") else "messages"
        raise ApiError(400, message, param=param) from None
