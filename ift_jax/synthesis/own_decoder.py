"""A model that this package loads and decodes, for synthesis."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding import Generator, Options, Output, Request, Sampling
from ift_jax.errors import UserError
from ift_jax.evaluation.text_generator import (
    TextGenerator,
    describe_text_generator,
    load_generator,
)
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.synthesis.answers_so_far import AnswersSoFar
from ift_jax.synthesis.generator import TOO_LONG, Interrupted, TextCompletion, TextRequest
from ift_jax.text.records import Message

_SENTINEL = "ift-jax-user-text"  # Stands for a user's text.


class DecoderCompleter:
    """Answers requests with the decoder of a run or of a Hugging Face folder.

    Attributes:
        text_generator: The model's format.
    """

    def __init__(
        self,
        text_generator: TextGenerator,
        load: Callable[[], Generator],
        batch_size: int = 32,
        stopped: Stopped = never,
    ):
        """Read no weights yet.

        Args:
            text_generator: The model's format.
            load: Reads the weights; called when they are first needed.
            batch_size: Rows that are decoded together.
            stopped: Whether to give up before the next block of tokens.

        Raises:
            UserError: The model is an encoder-decoder, which continues no text.
        """
        if not isinstance(text_generator.model.config, DecoderConfig):
            raise UserError(
                "synthesis continues texts, which takes a decoder; the model is an encoder-decoder"
            )
        self.text_generator = text_generator
        self._load = load
        self._batch_size = batch_size
        self._stopped = stopped

    @classmethod
    def open(
        cls, source: ModelSource, batch_size: int, stopped: Stopped = never
    ) -> "DecoderCompleter":
        """Describe a model; raise a UserError if there is none that can be read."""
        text_generator = describe_text_generator(source)
        load = functools.partial(load_generator, source, text_generator)
        return cls(text_generator, load, batch_size, stopped)

    @functools.cached_property
    def generator(self) -> Generator:
        """The model with its weights."""
        return self._load()

    def settings(self) -> dict[str, Any]:
        return {
            "weights": self.generator.fingerprint(),
            "format": self.text_generator.formatter.fingerprint,
            "batch_size": self._batch_size,  # It decides how sums are rounded.
        }

    def complete(
        self, requests: Sequence[TextRequest], so_far: AnswersSoFar | None = None
    ) -> list[list[TextCompletion]]:
        # Other batches would round sums differently, so a call is answered as a whole.
        prompts = [self._ids(request) for request in requests]
        fitting = [i for i, request in enumerate(requests) if self._fits(prompts[i], request)]
        decoded = [Request(prompts[i], _options(requests[i])) for i in fitting]
        outputs: dict[int, Output] = {}
        for batch in self.generator.complete_batches(
            decoded, batch_size=self._batch_size, stopped=self._stopped
        ):
            outputs |= batch
        if len(outputs) < len(decoded):
            raise Interrupted
        answers = [[TextCompletion("", TOO_LONG)] * request.n for request in requests]
        for place, i in enumerate(fitting):
            answers[i] = _completions(outputs[place])
        return answers

    def user_header(self) -> str:
        """Return what the chat template writes before the text of the first user's turn.

        Raises:
            UserError: The model's template writes a user's text changed, or not at all.
        """
        text = self.text_generator.formatter.text([Message("user", _SENTINEL)])
        header, found, _ = text.partition(_SENTINEL)
        if not found or not header:
            raise UserError(
                "the model's chat template writes nothing before a user's text, so nothing asks it "
                "to write one; expected a chat model, or --header TEXT"
            )
        return header

    def _ids(self, request: TextRequest) -> list[int]:
        """The ids of a prompt."""
        if not isinstance(request.prompt, str):
            return self.text_generator.formatter.prompt(request.prompt).tolist()
        tokenizer = self.text_generator.tokenizer
        if request.controls:
            return tokenizer.encode_with_controls(request.prompt)
        ids = tokenizer.encode(request.prompt)
        if tokenizer.adds_bos and tokenizer.bos_id is not None:
            return [tokenizer.bos_id, *ids]
        return ids

    def _fits(self, ids: Sequence[int], request: TextRequest) -> bool:
        model = self.text_generator.model.config
        positions = model.max_length if isinstance(model, DecoderConfig) else 0
        return not positions or len(ids) + request.max_tokens <= positions


def _options(request: TextRequest) -> Options:
    return Options(
        request.max_tokens,
        Sampling(
            request.temperature,
            top_p=request.top_p,
            repetition_penalty=request.repetition_penalty,
        ),
        request.seed,
        request.n,
        stop_strings=request.stop,
        logprobs=0 if request.log_prob else None,
    )


def _completions(output: Output) -> list[TextCompletion]:
    completions = []
    for completion in output.completions:
        log_probs = completion.logprobs
        total = None if log_probs is None else sum(token.logprob for token in log_probs)
        reason = completion.finish_reason
        completions.append(TextCompletion(completion.text, reason, total, len(completion.ids)))
    return completions
