"""The model that is served: its name, its limits, and the texts of its tokens."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from typing import Any

from ift_jax.config.schema import DecoderConfig
from ift_jax.decoding import Generator
from ift_jax.errors import UserError
from ift_jax.evaluation.chat import token_limits
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.serving.api_error import ApiError, invalid
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.records import Message, Record

TOO_LONG = "context_length_exceeded"
_LONGEST_TOKEN = 512  # Characters; those of released vocabularies have 128 or so.


class ServedModel:
    """A model, as the endpoints use it.

    Attributes:
        name: What requests call it.
        created: When it was loaded, in seconds since 1970.
        text_generator: Its format.
        generator: Its weights.
        max_answers: The most answers to one prompt.
        max_prompts: The most prompts of one request.
        chat_tokens: The most tokens of a chat's answer whose request does not say.
        seed: Seeds the answers of requests that have no seed.
        formatter: Writes conversations, and refuses those of which its template leaves out a text.
    """

    def __init__(
        self,
        name: str,
        text_generator: TextGenerator,
        generator: Generator,
        *,
        max_answers: int = 16,
        max_prompts: int = 256,
        max_length: int = 0,
        chat_tokens: int = 512,
        seed: int = 0,
    ):
        """Keep what is served.

        Args:
            name: See the attributes, as for the others.
            text_generator: See there.
            generator: See there.
            max_answers: See there.
            max_prompts: See there.
            max_length: The most tokens of a prompt with its answer, or of an encoder's input and of
                a decoder's answer; 0 for what the model was made for or trained on.
            chat_tokens: See there.
            seed: See there.

        Raises:
            UserError: The model has room for fewer tokens than `max_length`.
        """
        self.name = name
        self.created = int(time.time())
        self.text_generator = text_generator
        self.generator = generator
        self.max_answers = max_answers
        self.max_prompts = max_prompts
        self.chat_tokens = chat_tokens
        self.seed = seed
        self.numbers = itertools.count()  # Tells apart requests without a seed.
        self.tokenizer = text_generator.tokenizer
        self.is_decoder = isinstance(text_generator.config.model, DecoderConfig)
        model = text_generator.config.model
        positions = model.max_length if isinstance(model, DecoderConfig) else 0
        if positions and max_length > positions:
            raise UserError(
                f"max_length {max_length}: expected at most {positions}, for which the model was "
                "made"
            )
        limits = token_limits(text_generator)
        encoder = text_generator.config.row_lengths.encoder
        # In an encoder-decoder, prompt and answer have lengths of their own.
        self.max_prompt = max_length or (limits.total if self.is_decoder else encoder)
        self.max_answer = max_length or limits.answer
        self.formatter = _strict_formatter(text_generator)
        self._is_special = frozenset(self.tokenizer.special_tokens.values())
        self._anchor = self.tokenizer.encode("a", "text")
        self.token_text = functools.lru_cache(maxsize=1 << 16)(self._token_text)

    @property
    def description(self) -> dict[str, Any]:
        """What `/v1/models` says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "ift_jax",
            "max_model_len": self.max_prompt,
        }

    def check_name(self, name: Any) -> None:
        """Raise an ApiError for a request that wants another model."""
        if name is not None and name != self.name:
            raise ApiError(
                404,
                f"model: this server has {self.name!r} alone; found {str(name)[:80]!r}",
                param="model",
                code="model_not_found",
            )

    # --- Lengths ---

    def answer_length(self, prompt: Sequence[int], asked: int | None, default: int, of: str) -> int:
        """The most new tokens of an answer.

        Args:
            prompt: The prompt's ids.
            asked: What the request says, or None.
            default: What it is otherwise, if the model has room.
            of: The field with the prompt.

        Raises:
            ApiError: Prompt and answer do not fit the model.
        """
        n = len(prompt)
        most = self.max_prompt
        if self.is_decoder:
            room = most - n
            if room < (1 if asked is None else asked):
                answer = "an answer" if asked is None else f"max_tokens {asked}"
                what = f"{n} tokens and {answer}: expected at most {most} together"
                raise invalid(of, f"{what}, which this model serves", TOO_LONG)
            return min(default, room) if asked is None else asked
        if n > most:
            what = f"{n} tokens: expected at most {most}"
            raise invalid(of, f"{what}, which this model serves", TOO_LONG)
        if asked is not None and asked > self.max_answer:
            raise invalid("max_tokens", f"{asked}: expected at most {self.max_answer}", TOO_LONG)
        return min(default, self.max_answer) if asked is None else asked

    def check_text_length(self, text: str, of: str) -> None:
        """Refuse a text that is far too long before seconds are spent on its tokens."""
        if len(text) > _LONGEST_TOKEN * (self.max_prompt + 1):
            raise invalid(
                of,
                f"{len(text)} characters: expected at most {self.max_prompt} tokens, which this "
                "model serves",
                TOO_LONG,
            )

    # --- Texts and ids ---

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt that is the model's whole input.

        A decoder reads control strings in it as control tokens, with the BOS that its tokenizer
        adds, as in `transformers`. An encoder-decoder reads it as a record's `inputs`.
        """
        formatter = self.formatter
        if not self.is_decoder:
            record = Record((Message("user", text),), text_to_text=True, where="prompt")
            return formatter.prompt(record).tolist()
        tokenizer = self.tokenizer
        ids = tokenizer.encode_with_controls(text)
        if tokenizer.adds_bos and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
            ids = [tokenizer.bos_id, *ids]
        return ids or formatter.empty_prompt

    def text(self, ids: Sequence[int]) -> str:
        """The text of a prompt that was given as ids, control tokens among it."""
        return self.tokenizer.decode(ids, keep_special=True)

    def _token_text(self, token: int) -> str:
        """The text of a token in the middle of a text; `token_text` remembers it."""
        decode = functools.partial(self.tokenizer.decode, keep_special=True)
        before = decode(self._anchor)
        text = decode([*self._anchor, token])
        return text[len(before) :] if text.startswith(before) else decode([token])

    def is_control(self, token: int) -> bool:
        """Whether a token is left out of an answer's text."""
        return token in self._is_special


def _strict_formatter(text_generator: TextGenerator) -> PromptFormatter:
    """The formatter of a run, which may train on records that its template writes in part."""
    config = text_generator.config
    fmt = dataclasses.replace(config.format, unwritten="error")
    strict = dataclasses.replace(config, format=fmt)
    return PromptFormatter.from_config(strict, text_generator.tokenizer)
