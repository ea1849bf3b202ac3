"""Options that both releases of Natural Instructions share."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class InstanceOptions:
    """Which instances of a task file are used, and how many examples a prompt shows.

    Attributes:
        train_cap: Most training instances of a task, chosen by `seed` (Tk-Instruct: 100).
        validation_cap: Most instances of a training task that are kept out of training, where a
            tenth of the task's instances is not fewer.
        test_cap: Most instances of a held-out task; the first ones, as in the official evaluation.
        positive_examples: Most positive examples in a prompt.
        negative_examples: Most negative examples in a prompt.
        max_characters: Longest prompt that examples are added to. English has about four
            characters a token.
        seed: Seed of the choice of instances.
    """

    train_cap: int = 100
    validation_cap: int = 20
    test_cap: int = 100
    positive_examples: int = 2
    negative_examples: int = 0
    max_characters: int = 4000
    seed: int = 0
