"""Fitting a conversation into its limit: the longest contents lose their ends, if they may."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ift_jax.text.dropped import Dropped, too_long
from ift_jax.text.encode_chunks import Tokens
from ift_jax.text.over_length import LengthLimits, shorten_longest
from ift_jax.text.records import Record
from ift_jax.text.tokenizers.base import Tokenizer


class FittedTokens(NamedTuple):
    """Tokens of a conversation that fit their limit."""

    tokens: Tokens
    truncated: int  # How many were cut off.
    record: Record  # What they are the tokens of.


class ConversationFitter:
    """Cuts conversations by the limits of a run."""

    def __init__(self, tokenizer: Tokenizer, limits: LengthLimits, empty_prompt: list[int] | None):
        """Set up the fitter.

        Args:
            tokenizer: The tokenizer.
            limits: The lengths of the run.
            empty_prompt: For a decoder the ids that stand before an answer if nothing else does: a
                conversation that is cut to them has lost its prompt. None for an encoder.
        """
        self._tokenizer = tokenizer
        self._limits = limits
        self._empty_prompt = empty_prompt

    def fit(
        self,
        record: Record,
        tokens: Tokens,
        cuttable: Sequence[int],
        field: str,
        encode: Callable[[Record], Tokens | Dropped],
    ) -> FittedTokens | Dropped:
        """Cut the ends of the longest contents and encode a conversation again until it fits.

        Args:
            record: The record.
            tokens: The encoded conversation.
            cuttable: The messages whose contents may be cut.
            field: The limit, as a field of the config.
            encode: Encodes the record again.
        """
        limit = self._limits.of(field)
        size = tokens.size
        if size <= limit:
            return FittedTokens(tokens, 0, record)
        if self._limits.over_length != "truncate-prompt":
            uncut = [False] * len(tokens.pieces)
            if self._limits.fit(tokens.pieces, uncut, field, record.where) is None:
                return too_long(field, size)
        contents = {i: self._tokenizer.encode(record.messages[i].content, "text") for i in cuttable}
        excess, most = size - limit, sum(map(len, contents.values()))
        while excess <= most:
            shorter = self._shorten_contents(record, contents, excess)
            encoded = encode(shorter)
            if isinstance(encoded, Dropped):
                return encoded
            over = encoded.size - limit
            if over <= 0:
                if self._prompt_is_gone(encoded):
                    return too_long(field, size)
                return FittedTokens(encoded, size - encoded.size, shorter)
            if excess == most:
                return too_long(field, size)
            # The ids of a cut text need not be a prefix of the ids of the whole text.
            excess = min(excess + over, most)
        return too_long(field, size)

    def _shorten_contents(
        self, record: Record, contents: dict[int, list[int]], excess: int
    ) -> Record:
        """Cut tokens from the ends of the longest contents, `excess` in all."""
        messages = list(record.messages)
        kept = shorten_longest([len(ids) for ids in contents.values()], excess)
        for (i, ids), keep in zip(contents.items(), kept, strict=True):
            if keep == len(ids):
                continue
            whole = messages[i].content
            # A character whose bytes were cut decodes to U+FFFD.
            text = self._tokenizer.decode(ids[:keep]).rstrip("\ufffd")
            if not whole.startswith(text):  # It was normalized, or a space is missing.
                text = whole[: len(whole) * keep // len(ids)]
            messages[i] = dataclasses.replace(messages[i], content=text)
        return dataclasses.replace(record, messages=tuple(messages))

    def _prompt_is_gone(self, tokens: Tokens) -> bool:
        """Whether nothing is left before a decoder's first answer."""
        return tokens.pieces[0] == self._empty_prompt and tokens.spans[1].is_answer
