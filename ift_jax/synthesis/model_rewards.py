"""Rewards that models give: a scalar head's score, or a judge's log-probability.

Shape suffixes: B rows, L positions, D model width.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ift_jax.checkpoint.load_model import LoadedModel, load_model
from ift_jax.checkpoint.model_source import ModelSource
from ift_jax.checkpoint.reward_model_source import RewardModelSource
from ift_jax.config.schema import Config, DecoderConfig, ModelConfig
from ift_jax.data.packed_layout import RowLayout
from ift_jax.decoding.request_batch import bucket
from ift_jax.errors import UserError
from ift_jax.evaluation.continuations import continuation_of_record
from ift_jax.evaluation.log_likelihoods import Continuation, log_likelihoods
from ift_jax.models.model import Model, Params
from ift_jax.sharding import rules
from ift_jax.sharding.checksums import tree_checksum
from ift_jax.synthesis.rewards import NOT_A_NUMBER, TOO_LONG, Outcome, Sample
from ift_jax.text.dropped import Dropped
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.records import Message, Record

_ANY_LENGTH = 2**30  # Tokens.
PROMPT, COMPLETION = "{prompt}", "{completion}"  # What a judge's question has in their places.


class RewardModel:
    """The score of a sequence-classification model; a `Reward`.

    The model reads the conversation in its own chat template and scores its last token.

    Attributes:
        name: What messages call it.
    """

    def __init__(self, source: RewardModelSource, batch_size: int):
        """Read the weights.

        Args:
            source: The model.
            batch_size: Conversations that are scored together.
        """
        self.name = f"reward model {source.path}"
        self._source = source
        self._loaded = load_model(source)
        self._formatter = _unlimited_formatter(self._loaded)
        self._batch_size = batch_size

    def settings(self) -> dict[str, Any]:
        return {
            "reward": "reward model",
            "reward model's weights": _checksum(self._loaded.params),
            "reward model's head": _checksum({"score": self._source.score_D}),
            "reward model's format": self._formatter.fingerprint,
            "reward batch size": self._batch_size,
        }

    def score(self, samples: Sequence[Sample]) -> list[Outcome]:
        ids = [self._ids(sample) for sample in samples]

        def score(places: Sequence[int]) -> list[float]:
            return self.score_ids([ids[i] for i in places])

        return _outcomes([len(one) for one in ids], self._loaded.model.config, score)

    def score_ids(self, conversations: Sequence[list[int]]) -> list[float]:
        """Return the scores of conversations of ids, as `transformers` computes them."""
        by_length = sorted(range(len(conversations)), key=lambda i: len(conversations[i]))
        size = min(self._batch_size, 1 << max(len(conversations) - 1, 0).bit_length())
        scores: dict[int, float] = {}
        for start in range(0, len(by_length), size):
            chosen = by_length[start : start + size]
            rows = [conversations[i] for i in chosen]
            places_B = np.zeros(size, np.int32)
            places_B[: len(rows)] = [self._source.scored_place(row) for row in rows]
            inputs = _padded_inputs(rows, size)
            scores_B = _scores(
                self._loaded.model, self._loaded.params, inputs, places_B, self._source.score_D
            )
            scores |= zip(chosen, np.asarray(scores_B).tolist(), strict=False)
        return [scores[i] for i in range(len(conversations))]

    def _ids(self, sample: Sample) -> list[int]:
        """The whole conversation, what the template writes after the answer included."""
        made = self._formatter.encode(_answered(sample.record, sample.completion))
        if isinstance(made, Dropped):
            raise UserError(f"{sample.where}: {self.name} cannot read it: {made.reason}")
        return made[-1].tokens.tolist()


class Judge:
    """The log-probability that a model gives to a completion, or to an answer about it; a `Reward`.

    Attributes:
        name: What messages call it.
    """

    def __init__(self, source: ModelSource, batch_size: int, question: str = "", answer: str = ""):
        """Read the model.

        Args:
            source: The model, which may be any that `ift generate` answers with.
            batch_size: Conversations that are scored together.
            question: A text with "{prompt}" and "{completion}" in it that the judge is asked;
                "": the reward is the mean log-probability of the completion's tokens, stop token
                included, as the answer to the prompt.
            answer: The answer whose mean log-probability a token is the reward, without the stop
                token; given if a question is.

        Raises:
            UserError: The model cannot be read, or a question lacks one of its places.
        """
        check_question(question, answer)
        self.name = f"judge {source.path}"
        self._question, self._answer = question, answer
        self._loaded = load_model(source)
        config = self._loaded.config
        evaluation = dataclasses.replace(config.evaluation, batch_size=batch_size)
        self._config = dataclasses.replace(config, evaluation=evaluation)

    def settings(self) -> dict[str, Any]:
        return {
            "reward": "judge",
            "judge's weights": _checksum(self._loaded.params),
            "judge's format": _unlimited_formatter(self._loaded).fingerprint,
            "judge's question": self._question,
            "judge's answer": self._answer,
            "reward batch size": self._config.evaluation.batch_size,
        }

    def score(self, samples: Sequence[Sample]) -> list[Outcome]:
        rows = [self._continuation(sample) for sample in samples]
        lengths = [len(row.prompt) + len(row.answer) for row in rows]

        def score(places: Sequence[int]) -> list[float]:
            chosen = [rows[i] for i in places]
            found = log_likelihoods(self._loaded.model, self._loaded.params, self._config, chosen)
            return [found[i] for i in range(len(chosen))]

        return _outcomes(lengths, self._loaded.model.config, score)

    def _continuation(self, sample: Sample) -> Continuation:
        """What is scored; weights of one over the number of tokens make the sum their mean."""
        record, answer = sample.record, sample.completion
        if self._question:
            prompt = "\n".join(message.content for message in record.messages)
            text = self._question.replace(PROMPT, prompt).replace(COMPLETION, answer)
            record = Record((Message("user", text),), where=sample.where)
            answer = self._answer
        row = continuation_of_record(
            self._config, self._loaded.tokenizer, _answered(record, answer)
        )
        n_scored = len(row.answer) - (1 if self._question and len(row.answer) > 1 else 0)
        weights = [1 / n_scored] * n_scored + [0.0] * (len(row.answer) - n_scored)
        return row._replace(weights=weights)


def check_question(question: str, answer: str) -> None:
    """Check what a judge is asked.

    Raises:
        UserError: There is a question without an answer, or one without a place for completions.
    """
    if bool(question) != bool(answer):
        raise UserError("--judge-question and --judge-answer: expected both or none")
    if question and COMPLETION not in question:
        raise UserError(
            f"--judge-question: expected a text with {COMPLETION} in it (and {PROMPT}), where "
            "each completion is put"
        )


def _answered(record: Record, completion: str) -> Record:
    """A prompt with an answer, as training would have it; what the row itself says of it counts."""
    answer = Message("assistant", completion)
    return dataclasses.replace(record, messages=(*record.messages, answer))


def _unlimited_formatter(loaded: LoadedModel) -> ExampleFormatter:
    data = dataclasses.replace(
        loaded.config.data,
        max_length=_ANY_LENGTH,
        inputs_length=_ANY_LENGTH,
        targets_length=_ANY_LENGTH,
    )
    unlimited: Config = dataclasses.replace(loaded.config, data=data)
    return ExampleFormatter.from_config(unlimited, loaded.tokenizer)


def _outcomes(
    lengths: Sequence[int], config: ModelConfig, score: Callable[[Sequence[int]], list[float]]
) -> list[Outcome]:
    """Score the conversations that fit a model; the others have no reward.

    Args:
        lengths: The tokens of each conversation.
        config: The config of the model.
        score: Scores the conversations at some places.
    """
    positions = config.max_length if isinstance(config, DecoderConfig) else 0
    fitting = [i for i, length in enumerate(lengths) if not positions or length <= positions]
    scores = dict(zip(fitting, score(fitting) if fitting else [], strict=True))
    return [
        _finite(scores[i])
        if i in scores
        else Outcome(None, TOO_LONG, f"reads {length} tokens; the model takes {positions}")
        for i, length in enumerate(lengths)
    ]


def _finite(score: float) -> Outcome:
    if np.isfinite(score):
        return Outcome(score)
    return Outcome(None, NOT_A_NUMBER, f"gave {score}; expected a finite number")


def _padded_inputs(rows: Sequence[Sequence[int]], size: int) -> dict[str, np.ndarray]:
    """Lay out one conversation a row, padded to one of a few lengths; missing rows are empty."""
    lengths_N = np.array([len(row) for row in rows])
    counts_B = (np.arange(size) < len(rows)).astype(np.int64)
    layout = RowLayout(lengths_N, counts_B, bucket(int(lengths_N.max())))
    tokens = layout.concatenate([np.array(row, np.int32) for row in rows], np.int32)
    return {"tokens": tokens, **layout.segments_and_positions()}


@functools.partial(jax.jit, static_argnums=0)
def _scores(
    model: Model,
    params: Params,
    inputs: dict[str, jax.Array],
    places_B: jax.Array,
    score_D: jax.Array,
) -> jax.Array:
    """Return float32[B]: the head's output at one place of each row."""
    x_BxLxD = model.hidden(params, inputs)
    last_BxD = jnp.take_along_axis(x_BxLxD, places_B[:, None, None], axis=1)[:, 0]
    scores_B = jnp.matmul(last_BxD.astype(jnp.float32), score_D, precision="highest")
    return rules.constrain(scores_B, None)  # Replicated, so that every process can read it.


def _checksum(params: Params) -> str:
    return str(np.asarray(jax.jit(tree_checksum)(params)).tolist())
