"""Why a record gives no training example."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A record that gives no example.

    Attributes:
        reason: Why.
        field: Of one that is too long, the limit that it exceeds, as a field of the config.
        length: Of one that is too long, its tokens.
    """

    reason: str
    field: str = dataclasses.field(default="", compare=False)
    length: int = dataclasses.field(default=0, compare=False)


TOO_LONG = Dropped("too_long")
NOTHING_TRAINED = Dropped("nothing_trained")
TEMPLATE_UNSTABLE = Dropped("template_unstable")  # An answer does not follow its own prompt.
UNWRITTEN = Dropped("unwritten")  # The template leaves out a text.


def too_long(field: str, length: int) -> Dropped:
    """Return a record of `length` tokens that is dropped because a limit is lower."""
    return dataclasses.replace(TOO_LONG, field=field, length=length)
