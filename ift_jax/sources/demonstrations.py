"""Solved examples in a prompt: how long a prompt may be, and which examples fit into it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class PromptLimit:
    """The longest prompt that a source makes, in characters or in tokens.

    Attributes:
        max_characters: The limit without a tokenizer. English has about four characters a token.
        tokenizer: The path of a SentencePiece model or a tokenizer.json; "" to count characters.
        max_tokens: The limit with a tokenizer.
        reserved_tokens: Tokens of `max_tokens` that are kept free, for example for an EOS.
    """

    max_characters: int
    tokenizer: str = ""
    max_tokens: int = 0
    reserved_tokens: int = 0

    def fits(self, prompt: str) -> bool:
        """Return whether a prompt is within the limit."""
        if not self.tokenizer:
            return len(prompt) <= self.max_characters
        tokens = _tokenizer(self.tokenizer).encode(prompt)
        return len(tokens) + self.reserved_tokens <= self.max_tokens


@functools.cache
def _tokenizer(path: str) -> Tokenizer:
    return load_tokenizer(path)


def demonstrations_that_fit(
    demonstrations: Iterable[T],
    fits: Callable[[Sequence[T]], bool],
    *,
    skip_long: bool = False,
) -> list[T]:
    """Take demonstrations in their order for as long as they fit into a prompt.

    Args:
        demonstrations: Solved examples; those after the last one that is needed are not drawn.
        fits: Whether a prompt with these demonstrations is short enough.
        skip_long: Leave out a demonstration that does not fit and try the next one, instead of
            stopping there.
    """
    taken: list[T] = []
    for demonstration in demonstrations:
        if fits([*taken, demonstration]):
            taken.append(demonstration)
        elif not skip_long:
            break
    return taken
