"""What a benchmark is: items with their prompts, and a score for each answer."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ift_jax.evaluation.benchmarks.data_files import DataFiles


class Solved(NamedTuple):
    """A solved example in front of a question."""

    question: str
    answer: str


class Ratio(NamedTuple):
    """An item's share of a metric that is a ratio of sums, such as IFEval's over instructions."""

    numerator: float
    denominator: float


Scores = Mapping[str, float | Ratio]


@dataclasses.dataclass(frozen=True)
class Item:
    r"""One problem.

    Attributes:
        id: Its name in the files, or its place there; unique within the benchmark.
        question: The text to answer, with its cue, such as "Question: ...\nAnswer:".
        target: What scoring compares with, in JSON's types.
        group: The subject or task that has a score of its own; "" for none.
        instruction: A text in front of all solved examples, with its line feeds.
        solved: The solved examples, at most as many as were asked for.
        choices: The answers to rank by their likelihood; empty if the answer is generated.
        follow_ups: Further turns of the user, each asked after an answer.
        temperature: The sampling temperature; 0 is greedy.
    """

    id: str
    question: str
    target: Any = None
    group: str = ""
    instruction: str = ""
    solved: tuple[Solved, ...] = ()
    choices: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
    temperature: float = 0.0


class Answered(NamedTuple):
    """An item with the model's answers, one for each turn."""

    item: Item
    answers: Sequence[str]


class Benchmark(abc.ABC):
    """A published evaluation set.

    Attributes:
        name: Its name for `--benchmarks`.
        source: Where its files come from; for the message about a missing one.
        shots: How many solved examples the literature puts in front of a question.
        max_new_tokens: The most tokens of an answer; 0 where answers are ranked.
        stops: Texts that end an answer: what begins the next question.
        plain_stops: Texts that end an answer to a plain prompt besides. In a chat the end of the
            turn is enough, and an answer may have several paragraphs.
        joint: What stands between a question and its answer in plain text.
        needs_chat: Whether it is a conversation, which plain text cannot hold.
        packages: Modules of other projects that scoring imports.
        extra: The extra that installs them.
    """

    name: str
    source: str
    shots: int = 0
    max_new_tokens: int = 0
    stops: tuple[str, ...] = ()
    plain_stops: tuple[str, ...] = ()
    joint: str = " "
    needs_chat: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""

    @abc.abstractmethod
    def items(self, files: DataFiles, shots: int, *, chat: bool) -> list[Item]:
        """Read the problems.

        Args:
            files: Where to look.
            shots: How many solved examples come before each question.
            chat: Whether the prompt is a turn of a conversation, rather than plain text.

        Raises:
            UserError: A file is missing or holds something else.
        """

    @abc.abstractmethod
    def score(self, item: Item, answer: str) -> Scores:
        """Return the scores of a generated answer; 1 is right."""

    def score_choices(self, item: Item, log_likelihoods: Sequence[float]) -> Scores:
        """Return the scores of ranked choices; here only whether the likeliest is the right one.

        Args:
            item: The problem; its target is the place of the right choice.
            log_likelihoods: That of each choice given the prompt, the sum over its tokens.
        """
        return {"acc": float(_best(log_likelihoods) == item.target)}

    def outputs(self, answered: Sequence[Answered], model_name: str) -> Mapping[str, bytes]:
        """Return files for a judge or another program, by their name in the output folder."""
        return {}


class UnscoredBenchmark(Benchmark):
    """A benchmark whose answers a judge, or a sandbox, scores elsewhere."""

    def score(self, item: Item, answer: str) -> Scores:
        return {}


def normalized_scores(item: Item, log_likelihoods: Sequence[float]) -> Scores:
    """Return `acc`, and it with log-likelihoods per character and per byte of the choices.

    `acc_norm` is lm-evaluation-harness's: the choice with the highest log-likelihood divided by
    its number of characters. `acc_bytes` divides by the length in UTF-8.
    """
    n_characters = [max(len(choice), 1) for choice in item.choices]
    n_bytes = [max(len(choice.encode()), 1) for choice in item.choices]

    def right(lengths: Sequence[int]) -> float:
        normalized = [sum_ / n for sum_, n in zip(log_likelihoods, lengths, strict=True)]
        return float(_best(normalized) == item.target)

    return {
        "acc": right([1] * len(item.choices)),
        "acc_norm": right(n_characters),
        "acc_bytes": right(n_bytes),
    }


def _best(values: Sequence[float]) -> int:
    """Return the place of the largest value, the first one of equals."""
    return max(range(len(values)), key=values.__getitem__)
