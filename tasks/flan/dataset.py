"""What a FLAN dataset is: its cluster, its rows, and how its splits are carved out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ift_jax.metrics import exact_match

TRAIN_CAP = 30_000
VALIDATION = 200
_SLICED_TEST = 3_000

Fields = Mapping[str, Any]
Reader = Callable[[Mapping[str, Any]], Iterable[Fields]]


@dataclasses.dataclass(frozen=True)
class Part:
    """Rows `start:stop` of a split of the data, as in Python: negative from its end.

    `tfds` names another dataset for this part (GLUE's MNLI has three).
    """

    split: str
    start: int = 0
    stop: int | None = None
    tfds: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset of FLAN.

    Attributes:
      name: of the task, without "flan_".
      cluster: of tasks that are held out together.
      tfds: name in TFDS; also the folder of local copies.
      read: a row -> the fields of its templates, of no, one or several examples.
      splits: our split -> its part of the data.
      group: of templates; several datasets may share one.
      choices: every example has `options`, the answers to choose from.
      references: examples may have `answers`: several that are right.
      metrics: of its answers.
      train_cap: training examples at the most.
      open: (data.root, name) -> its rows, where they are neither local files nor TFDS's.
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
    open: Callable[[str, str], Any] | None = None

    @property
    def templates(self) -> str:
        """The group of its templates."""
        return self.group or self.name


def standard(train: str = "train") -> dict[str, Part]:
    """Train, validation and test are there, with answers."""
    return {
        "train": Part(train, 0, TRAIN_CAP),
        "validation": Part("validation", 0, VALIDATION),
        "test": Part("test"),
    }


def carved(
    test: str = "validation", train: str = "train", n: int = VALIDATION, tfds: str = ""
) -> dict[str, Part]:
    """The last `n` rows of training become validation; `test` is the other labelled split."""
    return {
        "train": Part(train, 0, -n),
        "validation": Part(train, -n),
        "test": Part(test, tfds=tfds),
    }


def train_only(n: int) -> dict[str, Part]:
    """Validation and test are the last rows of the only split, `n` each."""
    parts = {"train": (0, -2 * n), "validation": (-2 * n, -n), "test": (-n, None)}
    return {split: Part("train", *rows) for split, rows in parts.items()}


def sliced(k: int) -> dict[str, Part]:
    """The k-th block of rows of a corpus that has training data alone; no two overlap."""
    start = k * (TRAIN_CAP + VALIDATION + _SLICED_TEST)
    a, b = start + TRAIN_CAP, start + TRAIN_CAP + VALIDATION
    return {
        "train": Part("train", start, a),
        "validation": Part("train", a, b),
        "test": Part("train", b, b + _SLICED_TEST),
    }
