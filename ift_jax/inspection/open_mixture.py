"""Opening a mixture to look at it."""

import dataclasses
from typing import NamedTuple

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.train_sentencepiece import VocabularyTooLarge


class OpenedMixture(NamedTuple):
    """A mixture with its tokenizer and the config that it was opened with."""

    config: Config
    tokenizer: Tokenizer
    mixture: Mixture


def open_mixture(config: Config, which: str, *, may_shrink: bool) -> OpenedMixture:
    """Open a mixture, preparing it first where need be.

    Args:
        config: A run of it.
        which: "train", "eval" or "heldout".
        may_shrink: Where the mixture has too little text for a tokenizer of the size that the
            config asks for, train the largest that it has the text for.

    Raises:
        UserError: As `open_or_prepare`.
    """
    try:
        return OpenedMixture(config, *open_or_prepare(config, which))
    except VocabularyTooLarge as error:
        if not may_shrink:
            raise
        tokenizer = dataclasses.replace(config.tokenizer, train_vocab_size=error.largest)
        config = dataclasses.replace(config, tokenizer=tokenizer)
        return OpenedMixture(config, *open_or_prepare(config, which))
