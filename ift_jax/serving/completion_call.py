"""`/v1/completions`: the body of a request, and the answers to it."""

from typing import Any

from ift_jax.decoding import Output, Request, TokenLogprob
from ift_jax.errors import UserError
from ift_jax.io.json_reader import json_kind
from ift_jax.serving.api_error import ApiError, invalid
from ift_jax.serving.call_options import MAX_TOP, read_options
from ift_jax.serving.fields import Fields, checked_text
from ift_jax.serving.growing_answer import Piece
from ift_jax.serving.log_prob_fields import completion_logprobs
from ift_jax.serving.served_model import ServedModel

DEFAULT_TOKENS = 16  # As in OpenAI's API.


class CompletionCall:
    """A request for completions.

    Attributes:
        kind: OpenAI's name of the answer.
        stream_kind: Its name of an event of a stream.
        id_prefix: How the identifier of an answer begins.
        strips: Whether answers have no white space around.
        requests: One for each prompt.
        options: The options that all prompts share.
    """

    kind = stream_kind = "text_completion"
    id_prefix = "cmpl"
    strips = False

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
        self._echo = fields.flag("echo")
        self._n_top = fields.whole("logprobs", 0, MAX_TOP)
        prompts = _prompts(fields, model)
        fields.only("suffix", [""], "a prompt is continued at its end")
        fields.only("best_of", [1], "answers are not chosen among more")
        least = 0 if self._echo and model.is_decoder else 1
        self.options = read_options(
            fields,
            model,
            max_tokens=("max_tokens",),
            least_tokens=least,
            logprobs=self._n_top,
            # An answer of no tokens asks for those of its prompt alone.
            prompt_logprobs=(self._n_top or 0) if self._reads_prompt(fields) else None,
        )
        fields.finish()
        self._echoed: list[str] = []
        self.requests: list[Request] = []
        for prompt in prompts:
            self._add(prompt)
        # Where the text of the next token of each answer begins.
        self._offsets = [0] * (self.options.n * len(self.requests))

    def _reads_prompt(self, fields: Fields) -> bool:
        """Whether the log-probabilities of the prompts are computed."""
        return self._echo and (self._n_top is not None or fields.take("max_tokens") == 0)

    def _add(self, prompt: str | list[int]) -> None:
        """Add the request for one prompt."""
        model = self._model
        try:
            ids = model.encode(prompt) if isinstance(prompt, str) else prompt
        except UserError as error:
            raise ApiError(400, str(error), param="prompt") from None
        n_new = model.answer_length(ids, self.options.max_tokens, DEFAULT_TOKENS, "prompt")
        self.requests.append(self.options.request(model, ids, n_new, "prompt"))
        # Only now are the ids known to be the vocabulary's, which have texts.
        self._echoed.append(prompt if isinstance(prompt, str) else model.text(ids))

    def choice(self, piece: Piece, output: Output) -> dict[str, Any]:
        """An answer, or what is new of it in a stream: their shape is the same.

        Args:
            piece: What is new.
            output: That of the prompt.
        """
        place = piece.number // self.options.n
        echoes = self._echo and piece.is_first
        text = (self._echoed[place] if echoes else "") + piece.text
        logprobs = None
        if piece.logprobs is not None:
            ids = [token.id for token in piece.logprobs]
            places: list[TokenLogprob | None] = [*piece.logprobs]
            if echoes:
                ids = [*self.requests[place].prompt, *ids]
                places = [*(output.prompt_logprobs or []), *places]
            offset = self._offsets[piece.number]
            logprobs = completion_logprobs(self._model, ids, places, offset)
            self._offsets[piece.number] += sum(map(len, logprobs["tokens"]))
        return {
            "index": piece.number,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }

    stream_choice = choice


def _prompts(fields: Fields, model: ServedModel) -> list[str | list[int]]:
    """The prompts: a text, a list of texts, the ids of one prompt, or a list of those."""
    value = fields.take("prompt")
    if value is None:
        raise invalid("prompt", "is missing; expected a text, a list of texts, or token ids")
    items = value if isinstance(value, list) else [value]
    if not items:
        raise invalid("prompt", "expected at least one prompt, found an empty list")
    if items is value and all(type(item) is int for item in items):
        return [items]
    if len(items) > model.max_prompts:
        raise invalid("prompt", f"expected at most {model.max_prompts} prompts; found {len(items)}")
    return [_prompt(item, i, model) for i, item in enumerate(items)]


def _prompt(item: Any, i: int, model: ServedModel) -> str | list[int]:
    name = f"prompt[{i}]"
    if isinstance(item, str):
        model.check_text_length(item, "prompt")
        return checked_text(item, "prompt")
    if not isinstance(item, list) or not all(type(token) is int for token in item):
        found = "a list of other things" if isinstance(item, list) else json_kind(item)
        raise invalid("prompt", f"{name}: expected a text or a list of token ids, found {found}")
    return item
