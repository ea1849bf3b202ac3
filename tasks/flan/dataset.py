"""What a data set of FLAN is: its cluster, its rows, and how its splits are carved out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ift_jax.metrics import exact_match
from tasks.flan.rows import FlanRows, Part

# The most training examples of one data set of FLAN 2021 (arXiv:2109.01652, section 2.4: "we limit
# the number of training examples per dataset to 30k"). The cap on mixing rates is `RATE_CAP` in
# tasks/flan/flan2021.py; the caps of the Flan Collection are `CAPS` in tasks/flan/collection.py.
TRAIN_CAP = 30_000
VALIDATION_EXAMPLES = 200
# The test rows of the sets that are made of one corpus: its last ones.
_HELD_BACK_TEST = 500
_FORMATTING_TEST = 3_000
_TRANSLATION_TEST = 1_000

Fields = Mapping[str, Any]
Reader = Callable[[Mapping[str, Any]], Iterable[Fields]]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of FLAN.

    Attributes:
        name: The name in task names, without "flan2021_".
        cluster: The cluster of data sets that are held out together.
        tfds: The name in TFDS, which is also the folder of local copies.
        read: Turns a row into the fields that the templates name, of no, one or several examples.
        splits: Our name of a split -> the part of the data that it is made of.
        group: The group of templates, where it is not called like the data set. Several data sets
            may share a group.
        choices: Whether every example has `options`, the answers to choose from.
        references: Whether examples may have `answers`, several texts that are right.
        metrics: The metrics of the answers.
        train_cap: The most training rows, and the most training examples.
        open_rows: (data.root, TFDS name) -> the rows.
    """

    name: str
    cluster: str
    tfds: str
    read: Reader
    splits: Mapping[str, Part]
    group: str = ""
    choices: bool = False
    references: bool = False
    metrics: tuple[Callable[..., Any], ...] = (exact_match,)
    train_cap: int = TRAIN_CAP
    open_rows: Callable[[str, str], FlanRows] = FlanRows

    @property
    def templates(self) -> str:
        """The name of the group of templates."""
        return self.group or self.name


def standard(train: str = "train") -> dict[str, Part]:
    """Return the splits of a data set that publishes all three with answers."""
    return {
        "train": Part(train, 0, TRAIN_CAP),
        "validation": Part("validation", 0, VALIDATION_EXAMPLES),
        "test": Part("test"),
    }


def carved(
    test: str = "validation", train: str = "train", n: int = VALIDATION_EXAMPLES, tfds: str = ""
) -> dict[str, Part]:
    """Return splits whose validation is carved out of the training data.

    The training split is not capped here: `FlanSource.items` (tasks/flan/source.py) ends it after
    `Dataset.train_cap` rows, 30,000 for FLAN 2021.

    Args:
        test: The published split that becomes "test".
        train: The published split whose last `n` rows become "validation".
        n: The number of validation rows.
        tfds: The TFDS name of the data set of the test split, if it is another one.
    """
    return {
        "train": Part(train, 0, -n),
        "validation": Part(train, -n),
        "test": Part(test, tfds=tfds),
    }


def train_only(n: int) -> dict[str, Part]:
    """Return the splits of a data set with training data alone: its last rows are held back.

    Args:
        n: The number of validation rows, which come before the 500 test rows.
    """
    held_back = n + _HELD_BACK_TEST
    return {
        "train": Part("train", 0, -held_back),
        "validation": Part("train", -held_back, -_HELD_BACK_TEST),
        "test": Part("train", -_HELD_BACK_TEST),
    }


def parallel_corpus() -> dict[str, Part]:
    """Return the splits of a corpus of translations: train at the start, the rest at the end."""
    held_back = VALIDATION_EXAMPLES + _TRANSLATION_TEST
    return {
        "train": Part("train", 0, -held_back),
        "validation": Part("train", -held_back, -_TRANSLATION_TEST),
        "test": Part("train", -_TRANSLATION_TEST),
    }


def sliced(k: int) -> dict[str, Part]:
    """Return splits made of the `k`-th block of rows of a corpus that several data sets share.

    The blocks do not overlap. All data sets are tested on the corpus's last rows.
    """
    start = k * (TRAIN_CAP + VALIDATION_EXAMPLES)
    end = start + TRAIN_CAP
    return {
        "train": Part("train", start, end, reserved=_FORMATTING_TEST),
        "validation": Part("train", end, end + VALIDATION_EXAMPLES, reserved=_FORMATTING_TEST),
        "test": Part("train", -_FORMATTING_TEST),
    }
