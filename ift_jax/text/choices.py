"""Encoding choices: the answers of a record that are ranked, each as training would have it."""

import dataclasses
from collections.abc import Callable

from ift_jax.errors import UserError
from ift_jax.text.dropped import Dropped
from ift_jax.text.encoded import Encoded
from ift_jax.text.policies import Policy
from ift_jax.text.records import Record

Encode = Callable[[Record], list[Encoded] | Dropped]


def encode_with_choices(record: Record, policy: Policy, encode: Encode) -> list[Encoded] | Dropped:
    """Encode a record whose last answer has choices; the last example has the ids of each.

    The ids are those of the answer alone. Other turns may be trained as well, but of what is ranked
    they are the prompt.

    Args:
        record: A record with choices, which ends in an answer.
        policy: Its policy.
        encode: Encodes a record without choices.

    Raises:
        UserError: As `encode`, or answers are not trained.
    """
    if "assistant" not in policy.train_roles:
        raise UserError(
            f"{record.where}: field 'choices': format.train_roles does not name 'assistant', whose"
            " answers are ranked; expected it, or the field's name in data.ignore_fields"
        )
    plain = dataclasses.replace(record, choices=())
    examples = encode(plain)
    if isinstance(examples, Dropped):
        return examples
    answer_alone = dataclasses.replace(plain, policy={**record.policy, "train_on": "last"})
    *before, last = record.messages
    choices = []
    for text in record.choices:
        messages = (*before, dataclasses.replace(last, content=text))
        chosen = encode(dataclasses.replace(answer_alone, messages=messages))
        if isinstance(chosen, Dropped):
            return chosen
        (example,) = chosen
        choices.append((text, example.tokens[example.weights > 0].tolist()))
    return [*examples[:-1], dataclasses.replace(examples[-1], choices=tuple(choices))]
