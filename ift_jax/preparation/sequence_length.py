"""The lengths that SeqIO hands to preprocessors as `sequence_length`.

T5's `span_corruption` and `prefix_lm`, which take it, make examples of those lengths. A task with
such a preprocessor is read as `seqio.Task.get_dataset` reads it with the run's lengths. All other
tasks are read without lengths: `append_eos_after_trim`, which takes them if they are given, would
trim without a word what is for `data.over_length` to decide.
"""

import dataclasses
import inspect
from typing import Any

import seqio

from ift_jax.config.schema import DataConfig
from ift_jax.errors import UserError
from ift_jax.text.over_length import LengthLimits

_BEGINNING = 1  # Tokens.


def sequence_length(
    task: seqio.Task, architecture: str, lengths: DataConfig | LengthLimits
) -> dict[str, int] | None:
    """Return the lengths of a task's features, or None if no preprocessor needs them.

    An encoder-decoder's are `data.inputs_length` and `data.targets_length`, and so are those of a
    decoder, whose rows then hold both. A decoder's task without inputs gets `data.max_length`, less
    the token that begins its rows: nothing predicts the first token, so that it is not trained.

    Args:
        task: The task.
        architecture: "decoder" or "encoder_decoder".
        lengths: The run's lengths.

    Raises:
        UserError: A decoder's row does not hold the inputs and targets.
    """
    taking = [prep for prep in task.preprocessors if _needs_sequence_length(prep)]
    if not taking:
        return None
    both = {"inputs": lengths.inputs_length, "targets": lengths.targets_length}
    if architecture != "decoder":
        return both
    if "inputs" not in task.output_features:
        return {"targets": lengths.max_length - _BEGINNING}
    if sum(both.values()) > lengths.max_length:
        raise UserError(
            f"data.inputs_length {lengths.inputs_length} and data.targets_length "
            f"{lengths.targets_length}: expected a sum of at most data.max_length "
            f"{lengths.max_length}, because {seqio.utils.function_name(taking[0])} of task "
            f"{task.name!r} makes a decoder's examples of these lengths"
        )
    return both


def _needs_sequence_length(preprocessor: Any) -> bool:
    """Return whether SeqIO must give a preprocessor `sequence_length`."""
    name = "sequence_length"
    if dataclasses.is_dataclass(preprocessor):
        return any(field.name == name for field in dataclasses.fields(preprocessor))
    parameter = inspect.signature(preprocessor).parameters.get(name)
    return parameter is not None and parameter.default is inspect.Parameter.empty
