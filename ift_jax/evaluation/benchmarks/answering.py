"""Answering the items of a benchmark: generated until a stop, or ranked by likelihood."""

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ift_jax.config.schema import Config
from ift_jax.decoding import Generator, Options, Sampling, Stops
from ift_jax.evaluation.benchmarks.answers_file import AnswersFile, Key
from ift_jax.evaluation.benchmarks.base import Item
from ift_jax.evaluation.benchmarks.prompt_encoder import Fitted, PromptEncoder
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.stop_signals import Stopped
from ift_jax.models.model import Params

_SEEDS_OF_A_TURN = 1000  # More than any benchmark has temperatures.
# Ranked items between two writes. Each call of `log_probs` lays out the weights anew; a signal
# loses nothing, and a kill at most so many batches.
_BATCHES_OF_A_WRITE = 32


class Model(NamedTuple):
    """A model with its weights, and the same laid out for decoding."""

    text_generator: TextGenerator
    params: Params
    generator: Generator


@dataclasses.dataclass
class Work:
    """What answering took.

    Attributes:
        seconds: The time of generating or ranking, compilation included.
        n_answered: Answers of this call; those that were in the file already do not count.
        n_new_tokens: Tokens that were generated for them.
        shortened: Ids of items some of whose solved examples were left out to fit the model.
        too_long: Ids of items that do not fit the model at all; they count as wrong.
    """

    seconds: float = 0.0
    n_answered: int = 0
    n_new_tokens: int = 0
    shortened: set[str] = dataclasses.field(default_factory=set)
    too_long: set[str] = dataclasses.field(default_factory=set)


class _Asked(NamedTuple):
    """An item with a prompt that is to be answered."""

    item: Item
    place: int  # Its place among the benchmark's items.
    turn: int
    ranked: Choices
    digest: str

    def line(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the line of the answers' file."""
        return {
            "id": self.item.id,
            "turn": self.turn,
            "index": self.place,
            "question": (self.item.question, *self.item.follow_ups)[self.turn],
            "prompt_ids": self.digest,
            **fields,
        }


def generate_answers(
    model: Model,
    encoder: PromptEncoder,
    items: Sequence[Item],
    answers: AnswersFile,
    options: Options,
    *,
    batch_size: int,
    stopped: Stopped,
) -> Work:
    """Generate what the file lacks: all first turns, then all second ones, and so on.

    Args:
        model: The model; its generator's `stops` end the answers.
        encoder: Makes the prompts.
        items: What is to be answered.
        answers: Gets a line an answer.
        options: The most tokens, and the seed; an item has a temperature of its own.
        batch_size: Prompts that are answered together.
        stopped: Whether to end; the file can then be continued.
    """
    work = Work()
    for turn in range(1 + max((len(item.follow_ups) for item in items), default=0)):
        asked = _asked_of_turn(encoder, items, turn, answers, work)
        by_temperature = sorted(asked, key=lambda one: one.item.temperature)
        groups = itertools.groupby(by_temperature, key=lambda one: one.item.temperature)
        for number, (temperature, group) in enumerate(groups):
            drawn = dataclasses.replace(
                options,
                sampling=Sampling(temperature),
                seed=options.seed + _SEEDS_OF_A_TURN * turn + number,
            )
            _generate(model, list(group), answers, drawn, batch_size, stopped, work)
            if stopped():
                return work
    return work


def _asked_of_turn(
    encoder: PromptEncoder, items: Sequence[Item], turn: int, answers: AnswersFile, work: Work
) -> list[_Asked]:
    """Return the prompts of a turn, those that are answered included."""
    asked = []
    for index, item in enumerate(items):
        if turn > len(item.follow_ups) or item.id in work.too_long:
            continue
        given = [answers.lines[item.id, before]["answer"].strip() for before in range(turn)]
        fitted = encoder.fitted(item, given)
        if fitted is None:
            work.too_long.add(item.id)
        else:
            asked.append(_noted(_Asked(item, index, turn, fitted.ranked, ""), fitted, work))
    return asked


def _noted(asked: _Asked, fitted: Fitted, work: Work) -> _Asked:
    if fitted.n_left_out:
        work.shortened.add(asked.item.id)
    ids = np.asarray(asked.ranked.prompt, np.int32).tobytes()
    return asked._replace(digest=hashlib.sha256(ids).hexdigest()[:16])


def _generate(
    model: Model,
    asked: Sequence[_Asked],
    answers: AnswersFile,
    options: Options,
    batch_size: int,
    stopped: Stopped,
    work: Work,
) -> None:
    # A batch that is done in part is generated again as a whole; only what it lacks is kept.
    known: dict[int, list[int]] = {
        i: [] for i, one in enumerate(asked) if answers.known(_key(one), one.digest)
    }
    if len(known) == len(asked) or stopped():
        return
    begun = time.perf_counter()
    prompts = [one.ranked.prompt for one in asked]
    stops = model.generator.stops
    for batch in model.generator.generate_batches(
        prompts, options, batch_size=batch_size, known=known, stopped=stopped
    ):
        new = {i: ids for i, ids in batch.items() if i not in known}
        if new:
            answers.add(
                [
                    asked[i].line(
                        {
                            "answer": text_until_stop(stops, ids),
                            "stopped": stops.stopped(ids),
                            "new_tokens": len(ids),
                        }
                    )
                    for i, ids in new.items()
                ]
            )
        work.n_answered += len(new)
        work.n_new_tokens += sum(map(len, new.values()))
    work.seconds += time.perf_counter() - begun


def _key(asked: _Asked) -> Key:
    return asked.item.id, asked.turn


def text_until_stop(stops: Stops, ids: Sequence[int]) -> str:
    """Return an answer up to what ends it, with its white space: code begins with some."""
    assert stops.decode is not None
    text = stops.decode(list(itertools.takewhile(lambda token: token not in stops.ids, ids)))
    before = stops.text_before_stop(text)
    return text if before is None else before


def rank_answers(
    model: Model,
    encoder: PromptEncoder,
    items: Sequence[Item],
    answers: AnswersFile,
    *,
    batch_size: int,
    stopped: Stopped,
) -> Work:
    """Score the choices that the file lacks.

    Args:
        model: The model.
        encoder: Makes the prompts.
        items: What is to be ranked.
        answers: Gets a line an item, with the log-likelihood of each choice.
        batch_size: Rows, a choice each, that are scored together.
        stopped: Whether to end before the next items.
    """
    work = Work()
    asked = _asked_of_turn(encoder, items, 0, answers, work)
    missing = [one for one in asked if not answers.known(_key(one), one.digest)]
    config = _sums(model.text_generator.config, batch_size)
    missing.sort(key=lambda one: len(one.ranked.prompt))
    begun = time.perf_counter()
    for group in _groups(missing, _BATCHES_OF_A_WRITE * batch_size):
        if stopped():
            break
        rows = [one.ranked for one in group]
        found = log_probs(model.text_generator.model, model.params, config, rows, stopped)
        answers.add(
            [
                group[i].line(
                    {
                        "answer": group[i].item.choices[int(np.argmax(sums))],
                        "choices": list(group[i].item.choices),
                        "log_likelihoods": sums,
                    }
                )
                for i, sums in found.items()
            ]
        )
        work.n_answered += len(found)
    work.seconds = time.perf_counter() - begun
    return work


def _groups(asked: Sequence[_Asked], size: int) -> Iterator[Sequence[_Asked]]:
    for start in range(0, len(asked), size):
        yield asked[start : start + size]


def _sums(config: Config, batch_size: int) -> Config:
    """Return a config under which `log_probs` gives sums; a benchmark normalizes them itself."""
    evaluation = dataclasses.replace(
        config.evaluation, length_normalize=False, batch_size=batch_size
    )
    return dataclasses.replace(config, evaluation=evaluation)
