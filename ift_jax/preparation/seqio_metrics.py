"""SeqIO's contract for metrics: what a task's own metrics and `postprocess_fn` are called with.

This follows `seqio.Evaluator` and `seqio.metrics`, but calls each metric by itself, so that one
that raises costs no other its result. Importing this module imports TensorFlow.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import seqio
from seqio.metrics import ModelOutputType

from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.metrics import MetricCall, ModelOutput, is_reference_metric
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.read_examples import Reading, is_text_task, whole_examples
from ift_jax.preparation.sequence_length import sequence_length
from ift_jax.preparation.shards import parts_of_store
from ift_jax.text.rows.parse_record import RowOptions

_TARGETS = "targets"


class SeqioMetrics:
    """The metrics of a registered task.

    Attributes:
        is_tokenized: Whether the task tokenizes itself; then its own vocabulary decodes answers.
    """

    def __init__(self, reading: Reading):
        """Read nothing yet.

        Args:
            reading: How a part of the store that holds the examples was read.

        Raises:
            ValueError: A metric function has other arguments than SeqIO knows.
        """
        task = reading.task
        self._reading = reading
        self._functions: list[tuple[ModelOutputType, Callable[..., Any]]] = [
            *((ModelOutputType.PREDICTION, metric) for metric in task.predict_metric_fns),
            *((ModelOutputType.SCORE, metric) for metric in task.score_metric_fns),
            *(
                (ModelOutputType.PREDICTION_WITH_AUX, metric)
                for metric in task.predict_with_aux_metric_fns
            ),
        ]
        # SeqIO puts an object for each function after those that the task was given.
        n_given = len(task.metric_objs) - len(task.metric_fns)
        self._objects = task.metric_objs[:n_given]
        self._examples: dict[int, dict[str, Any]] = {}  # By index; those that were read.
        self.is_tokenized = not is_text_task(task)

    @property
    def needs_target_scores(self) -> bool:
        """Whether a metric takes the log-likelihoods of the targets."""
        return ModelOutputType.SCORE in self._kinds()

    @property
    def needs_answer_scores(self) -> bool:
        """Whether a metric takes the log-likelihoods of the answers."""
        return ModelOutputType.PREDICTION_WITH_AUX in self._kinds()

    def _kinds(self) -> set[Any]:
        of_objects = (getattr(metric, "model_output_type", None) for metric in self._objects)
        return {*(kind for kind, _ in self._functions), *of_objects}

    def calls(self, outputs: Sequence[ModelOutput]) -> list[MetricCall]:
        """Return the metrics of these examples; nothing is computed or read yet."""
        given = _Given(self._reading, outputs, self._examples)
        objects = [
            MetricCall(_name(metric), functools.partial(given.compute_object, metric))
            for metric in self._objects
        ]
        functions = [
            MetricCall(
                _name(metric),
                functools.partial(given.compute_function, metric, kind),
                functools.partial(given.compute_function, metric, kind),
            )
            for kind, metric in self._functions
        ]
        return [*objects, *functions]


def open_metrics(config: Config, name: str, split: str) -> SeqioMetrics:
    """Import the task modules of a config and return the metrics of one of their tasks.

    Args:
        config: The run's config.
        name: The task's name.
        split: The split whose examples are evaluated.

    Raises:
        UserError: The modules do not register this task, or its metrics are not SeqIO's.
    """
    seqio_registry.import_modules(config.data.modules, config.data.root, RowOptions.of(config.data))
    if name not in seqio.TaskRegistry.names():
        raise UserError(f"data.modules: no SeqIO task is called {name!r}; its metrics are needed")
    task = seqio.TaskRegistry.get(name)
    try:
        [part, *_] = parts_of_store(task, split, 1, Path())
        lengths = sequence_length(task, config.model.architecture, config.data)
        return SeqioMetrics(Reading.of_part(part, task, config.seed, lengths))
    except ValueError as error:
        raise UserError(f"task {name!r}: metric_fns: {error}") from error


class _Given:
    """What the metrics of a task are given for some of its examples.

    Each value is made when the first metric needs it. Making it may raise what the task's own code
    raises; then each metric that needs it raises that.
    """

    def __init__(
        self,
        reading: Reading,
        outputs: Sequence[ModelOutput],
        examples: dict[int, dict[str, Any]],
    ) -> None:
        self._task = reading.task
        self._known_examples = examples
        self._reading = reading
        self._outputs = outputs
        self._is_tokenized = not is_text_task(reading.task)

    def compute_function(
        self, metric: Callable[..., Any], kind: ModelOutputType, only: int | None = None
    ) -> Any:
        """Call a metric function by SeqIO's argument names, or with references if it is marked.

        Args:
            metric: The metric.
            kind: What it takes.
            only: The place of the one example that it is called with; by default all are given.
        """
        chosen = slice(None) if only is None else slice(only, only + 1)
        if is_reference_metric(metric):
            outputs = self._outputs[chosen]
            references = [list(output.references) for output in outputs]
            return metric(references, [output.answer for output in outputs])
        targets = list(self.targets[chosen])
        if kind == ModelOutputType.SCORE:
            return metric(targets=targets, scores=self._target_scores[chosen])
        predictions = list(self.predictions[chosen])
        if kind == ModelOutputType.PREDICTION:
            return metric(targets=targets, predictions=predictions)
        aux_values = {name: values[chosen] for name, values in self._aux_values.items()}
        return metric(targets=targets, predictions=predictions, aux_values=aux_values)

    def compute_object(self, metric: Any) -> Any:
        """Compute a metric object, as `seqio.Evaluator` does."""
        inputs = [
            {_TARGETS + "_pretokenized": text, **example}
            for text, example in zip(self.target_texts, self.examples, strict=True)
        ]
        model_output = self._model_output(metric.model_output_type)
        features = self._task.output_features
        made = metric.from_model_output(inputs, model_output, features, _TARGETS)
        if isinstance(made, seqio.metrics.CollectingMetric):
            # No cached targets: those of another metric may have another postprocessor.
            values, _ = made.actual_compute(inputs, features, _TARGETS)
            return values
        return made.compute()

    def _model_output(self, kind: Any) -> Any:
        if kind == ModelOutputType.SCORE:
            return self._target_scores
        if kind == ModelOutputType.PREDICTION:
            return self._raw_predictions()
        if kind == ModelOutputType.PREDICTION_WITH_AUX:
            return self._raw_predictions(), self._aux_values
        raise ValueError(f"its model_output_type is {kind!r}, which an evaluation does not give")

    @functools.cached_property
    def _target_scores(self) -> np.ndarray:
        return np.array([output.target_score for output in self._outputs])

    @functools.cached_property
    def _aux_values(self) -> dict[str, np.ndarray]:
        """Return the auxiliary values of T5X: the log-likelihood of each answer."""
        return {"scores": np.array([output.answer_score for output in self._outputs])}

    def _raw_predictions(self) -> np.ndarray:
        """Return the answers as the model gave them.

        Returns:
            int32[N, L], padded with 0, for a task that tokenizes itself; else N texts, as its
            features have no vocabulary.
        """
        if not self._is_tokenized:
            return np.array([self._text(output) for output in self._outputs], object)
        length = max(len(output.answer_ids) for output in self._outputs)
        ids_NxL = np.zeros((len(self._outputs), length), np.int32)
        for row, output in zip(ids_NxL, self._outputs, strict=True):
            row[: len(output.answer_ids)] = output.answer_ids
        return ids_NxL

    @functools.cached_property
    def targets(self) -> list[Any]:
        """The postprocessed target of each example."""
        return self._postprocessed(self.target_texts, is_target=True)

    @functools.cached_property
    def predictions(self) -> list[Any]:
        """The postprocessed answer to each example."""
        return self._postprocessed([self._text(output) for output in self._outputs])

    def _postprocessed(self, texts: Sequence[str], *, is_target: bool = False) -> list[Any]:
        if self._task.postprocessor is None:
            return list(texts)
        return [
            self._task.postprocess_fn(text, example=example, is_target=is_target)
            for text, example in zip(texts, self.examples, strict=True)
        ]

    def _text(self, output: ModelOutput) -> str:
        """Return the text of an answer.

        Where the run's template wraps the texts, white space around an answer may be the
        template's, and none of it is judged: an answer gets that of the target.
        """
        if self._is_tokenized:
            return str(self._vocabulary.decode(output.answer_ids))
        if output.is_choice:
            return output.answer
        target = output.references[0]
        before = target[: len(target) - len(target.lstrip())]
        after = target[len(target.rstrip()) :] if target.strip() else ""
        return before + output.answer + after

    @property
    def _vocabulary(self) -> Any:
        return self._task.output_features[_TARGETS].vocabulary

    @functools.cached_property
    def target_texts(self) -> list[str]:
        """The text of each example's target."""
        if not self._is_tokenized:
            return [output.references[0] for output in self._outputs]
        texts = []
        for example in self.examples:
            if _TARGETS + "_pretokenized" in example:
                text = example[_TARGETS + "_pretokenized"]
                texts.append(text.decode("utf-8") if isinstance(text, bytes) else text)
            else:
                texts.append(self._vocabulary.decode(list(example[_TARGETS])))
        return texts

    @functools.cached_property
    def examples(self) -> list[dict[str, Any]]:
        """Each example with all that the task's preprocessors gave it; read again.

        Raises:
            UserError: The data is not what it was when the store was made.
        """
        found = self._known_examples
        if wanted := {output.index for output in self._outputs} - found.keys():
            found |= self._read(wanted)
        for output in self._outputs:
            example = found.get(output.index)
            if example is None or not self._is_same(example, output):
                raise UserError(
                    f"task {self._task.name!r}: example {output.index} is no longer what its token "
                    "store was made of; run `ift prepare` again"
                )
        return [found[output.index] for output in self._outputs]

    def _read(self, wanted: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the examples with these indices, from the shards that hold them."""
        shards = self._reading.shards
        for shard in sorted({index % shards for index in wanted}):
            last = max(index for index in wanted if index % shards == shard)
            examples = whole_examples(dataclasses.replace(self._reading, shard=shard))
            for index, example in zip(range(shard, last + 1, shards), examples, strict=False):
                if index in wanted:
                    yield index, example

    def _is_same(self, example: dict[str, Any], output: ModelOutput) -> bool:
        if self._is_tokenized or _TARGETS not in example:
            return True
        return bool(example[_TARGETS].decode("utf-8") == output.references[0])


def _name(metric: Any) -> str:
    """Return what messages call a metric: the name of its function or class."""
    while isinstance(metric, functools.partial):
        metric = metric.func
    return str(getattr(metric, "__name__", None) or type(metric).__name__)
