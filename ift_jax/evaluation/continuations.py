"""A prompt and an answer to it as ids for `log_likelihoods`: from messages or from plain texts."""

import dataclasses

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.evaluation.log_likelihoods import Continuation
from ift_jax.text.examples import Dropped, ExampleFormatter
from ift_jax.text.records import Record
from ift_jax.text.tokenizers.base import Tokenizer

_ANY_LENGTH = 2**30  # Tokens.


def continuation_of_texts(
    tokenizer: Tokenizer, context: str, continuation: str, *, bos: bool
) -> Continuation:
    """Encode two texts that follow each other, for a decoder.

    The rule is lm-evaluation-harness's: white space between them belongs to the continuation, and
    the tokens of the continuation are those of both texts together after as many as the context
    alone has.

    Args:
        tokenizer: The tokenizer.
        context: The text that is given.
        continuation: The text whose likelihood is asked for; not empty.
        bos: Whether BOS comes first. Without a context it, or EOS where there is none, always does.
    """
    kept = context.rstrip()
    continuation = context[len(kept) :] + continuation
    before = plain_prompt(tokenizer, kept, bos=bos)
    whole = [*_beginning(tokenizer, kept, bos=bos), *tokenizer.encode(kept + continuation)]
    # Characters of both texts can end up in one token, which then counts as the continuation's.
    n_before = min(len(before), len(whole) - 1)
    return Continuation(before[:n_before], whole[n_before:], n_before)


def plain_prompt(tokenizer: Tokenizer, text: str, *, bos: bool) -> list[int]:
    """Return the ids of a text without a template, for a decoder."""
    return [*_beginning(tokenizer, text, bos=bos), *(tokenizer.encode(text) if text else [])]


def _beginning(tokenizer: Tokenizer, text: str, *, bos: bool) -> list[int]:
    """Return what comes before a text: BOS if it is asked for or nothing else is there."""
    first_id = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return [first_id] if bos or not text else []


def continuation_of_record(config: Config, tokenizer: Tokenizer, record: Record) -> Continuation:
    """Encode a conversation that ends with an answer, in the format of its model.

    The ids are those of training, and the answer ends with its stop token. The rows of the run
    that trained the model do not limit the length.

    Raises:
        UserError: The template refuses the conversation.
    """
    data = dataclasses.replace(
        config.data, max_length=_ANY_LENGTH, inputs_length=_ANY_LENGTH, targets_length=_ANY_LENGTH
    )
    unlimited = dataclasses.replace(config, data=data)
    made = ExampleFormatter.from_config(unlimited, tokenizer).encode(record)
    if isinstance(made, Dropped):
        raise UserError(f"{record.where}: the conversation cannot be scored: {made.reason}")
    example = made[-1]
    tokens = example.tokens.tolist()
    if config.model.architecture == "encoder_decoder":
        assert example.encoder_tokens is not None
        return Continuation(example.encoder_tokens.tolist(), tokens, 0)
    n_prompt = example.prompt_length
    trained = [i for i, weight in enumerate(example.weights) if weight and i >= n_prompt]
    return Continuation(
        tokens[:n_prompt], tokens[n_prompt : trained[-1] + 1], example.prefix_length
    )
