"""Whose words each token of an example is, found by the texts of its record."""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.dropped import Dropped
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.records import Message, Record
from ift_jax.text.rows.parse_record import RowOptions
from ift_jax.text.token_texts import token_texts
from ift_jax.text.tokenizers.base import Tokenizer

TEMPLATE = "template"  # What the template writes around the messages.
UNKNOWN = "text"  # Where the record cannot be had: its task tokenizes itself.


class Token(NamedTuple):
    """A token of an example.

    Attributes:
        id: Its id.
        text: The text that it adds.
        role: The role of the message that it belongs to, `TEMPLATE`, or `UNKNOWN`.
        weight: Its loss weight as a target; 0 for the tokens of an encoder.
    """

    id: int
    text: str
    role: str
    weight: float


class TokenizedExample(NamedTuple):
    """An example as it is trained.

    Attributes:
        task: Its task.
        position: The position of its record in the source.
        side: Of a pair, "chosen" or "rejected"; "" otherwise.
        encoder: The encoder's tokens; empty for a decoder.
        decoder: The other tokens.
    """

    task: str
    position: int
    side: str
    encoder: list[Token]
    decoder: list[Token]


def tokenized_examples(
    config: Config,
    which: str,
    mixture: Mixture,
    tasks: Sequence[str],
    count: int,
    tokenizer: Tokenizer,
) -> Iterator[TokenizedExample]:
    """Yield the first examples of some tasks, token by token; each side of a pair by itself.

    Args:
        config: A run of the mixture.
        which: "train", "eval" or "heldout": what of the config the mixture is.
        mixture: The mixture.
        tasks: Tasks of it.
        count: At most this many examples a task.
        tokenizer: The tokenizer of the stores.
    """
    for task in tasks:
        store = mixture.stores[mixture.tasks.index(task)]
        n = min(count, len(store))
        records = dict(_records(config, which, task, store, n, tokenizer))
        for i in range(n):
            record = records.get(i)
            encoder_ids = store.encoder_tokens(i).tolist()
            for side in store.variants[0].sides(i):
                messages = record.messages if record else None
                if record and side.name == "rejected":
                    messages = record.rejected
                encoder_messages = messages
                if messages and encoder_ids:
                    encoder_messages, messages = messages[:-1], messages[-1:]
                unweighted = [0.0] * len(encoder_ids)
                yield TokenizedExample(
                    task=task,
                    position=int(store.indices[i]),
                    side=side.name,
                    encoder=_tokens(tokenizer, encoder_ids, unweighted, encoder_messages),
                    decoder=_tokens(
                        tokenizer, side.tokens.tolist(), side.weights.tolist(), messages
                    ),
                )


def _records(
    config: Config, which: str, task: str, store: TokenStore, n: int, tokenizer: Tokenizer
) -> Iterator[tuple[int, Record]]:
    """Yield the records of the first n examples of a store, by the place of the example.

    Each record is encoded again: it belongs to an example only if it gives the very same tokens.
    """
    with quiet_tensorflow_import():
        from ift_jax.preparation import seqio_registry
        from ift_jax.preparation.read_examples import Reading, is_text_task, text_records
        from ift_jax.preparation.sequence_length import sequence_length
        from ift_jax.preparation.shards import parts_of_store

    data = config.data
    seqio_registry.import_modules(data.modules, data.root, RowOptions.of(data))
    named = mixture_and_split(config, which)
    provider = seqio_registry.resolve(named.name, named.field)
    found = {each.name: each for each in seqio_registry.tasks_of(provider, named.split, "split")}
    if task not in found or not is_text_task(found[task]):
        return
    split = store.manifest["split"]
    [part, *_] = parts_of_store(found[task], split, 1, store.path)
    lengths = sequence_length(found[task], config.model.architecture, data)
    reading = Reading.of_part(part, found[task], config.seed, lengths)
    formatter = ExampleFormatter.from_config(config, tokenizer)
    place = 0
    for record in itertools.islice(text_records(reading), 100 * n):
        made = formatter.encode(record)
        if isinstance(made, Dropped):
            continue
        for example in made:
            if place < n and np.array_equal(example.tokens, store.tokens(place)):
                yield place, record
            place += 1
        if place >= n:
            return


def _tokens(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    weights: Sequence[float],
    messages: Sequence[Message] | None,
) -> list[Token]:
    """Return tokens with their texts and roles."""
    texts = token_texts(tokenizer, ids)
    roles = [UNKNOWN] * len(ids) if messages is None else _roles(texts, messages)
    return [Token(*token) for token in zip(ids, texts, roles, weights, strict=True)]


def _roles(texts: Sequence[str], messages: Sequence[Message]) -> list[str]:
    """Return the role of each token: that of the message whose text its own begins in."""
    text = "".join(texts)
    ends = list(itertools.accumulate(map(len, texts)))
    roles = [TEMPLATE] * len(texts)
    searched_to = 0
    for message in messages:
        for part in (message.reasoning_content.strip(), message.content.strip()):
            start = text.find(part, searched_to) if part else -1
            if start < 0:
                continue  # The template writes it in another way, or leaves it out.
            searched_to = start + len(part)
            first = bisect.bisect_right(ends, start)
            last = bisect.bisect_left(ends, searched_to)
            for k in range(first, min(last + 1, len(texts))):
                roles[k] = message.role_name or message.role
    return roles
