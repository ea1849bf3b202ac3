"""Formatters of the tokenizers that tests make."""

import itertools

from ift_jax.config.schema import FormatConfig
from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.filters import KEEP_ALL
from ift_jax.text.turn_rules import AS_GIVEN
from tests.text import chat_tokenizers as tok
from tests.text.small_tokenizers import CHATML, small_tokenizer


def make_formatter(
    tokenizer,
    architecture="decoder",
    *,
    length=100_000,
    inputs_length=None,
    targets_length=None,
    over_length="drop",
    turn_rules=AS_GIVEN,
    filters=KEEP_ALL,
    **options,
):
    """Makes a formatter; `length` is every limit that is not given, `options` are the format's."""
    return ExampleFormatter(
        FormatConfig(**options),
        tokenizer,
        architecture,
        max_length=length,
        inputs_length=length if inputs_length is None else inputs_length,
        targets_length=length if targets_length is None else targets_length,
        over_length=over_length,
        turn_rules=turn_rules,
        filters=filters,
    )


def small_formatter(kind, architecture="decoder", **options):
    """Makes a formatter of one of the `small_tokenizers`."""
    return make_formatter(small_tokenizer(kind), architecture, **options)


def named_formatter(name, style, **options):
    """Makes a formatter of a named template, with a tokenizer that has its control tokens."""
    tokenizer = tok.ours(style, NAMES[name])
    return make_formatter(tokenizer, template=name, over_length="error", **options)


def chat_formatter(source, style="byte_level", **options):
    """Makes a formatter of the text of a template, with a tokenizer that has ChatML's tokens."""
    tokenizer = tok.ours(style, CHATML)
    return make_formatter(tokenizer, template=source, over_length="error", **options)


def shown(formatter, example):
    """The text of an example, with what is trained between angles."""
    parts = []
    pairs = zip(example.tokens.tolist(), example.weights.tolist(), strict=True)
    for trained, run in itertools.groupby(pairs, key=lambda pair: pair[1] > 0):
        text = formatter.tokenizer.decode([token for token, _ in run], keep_special=True)
        parts.append(f"«{text}»" if trained else text)
    return "".join(parts)
