"""The batches of an evaluation: every example of a mixture's variant 0 once."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ift_jax.config.schema import Config, DataConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.data.row_batch import Batch


class EvalPlan(NamedTuple):
    """The batches of an evaluation: the first ones of a plan."""

    plan: BatchPlan
    n_steps: int


def eval_plan(
    mixture: Mixture,
    data: DataConfig,
    architecture: str,
    batch_size: int,
    *,
    max_rows: int = 0,
    bidirectional_prefix: bool = False,
) -> EvalPlan:
    """Plan batches of every example of a mixture's variant 0, whatever the rates and the seed.

    The last batch is filled up with empty rows.

    Args:
        mixture: The tasks and their stores.
        data: As for `BatchPlan`.
        architecture: As for `BatchPlan`.
        batch_size: Rows per batch.
        max_rows: If positive, only about so many rows: the first ones of a fixed shuffle over all
            tasks, in proportion to their sizes.
        bidirectional_prefix: As for `BatchPlan`.
    """
    sizes = np.array([of_variants[0] for of_variants in mixture.sizes], np.float64)
    plan = BatchPlan(
        dataclasses.replace(mixture, rates=sizes),
        data,
        architecture,
        batch_size,
        seed=0,
        epochs=1.0,
        bidirectional_prefix=bidirectional_prefix,
    )
    n_steps = plan.n_steps
    if max_rows:
        n_steps = min(n_steps, -(-max_rows // batch_size))
    return EvalPlan(plan, n_steps)


def eval_plan_of_run(config: Config, mixture: Mixture) -> EvalPlan:
    """Return the batches of the eval loss of a run."""
    return eval_plan(
        mixture,
        config.data,
        config.model.architecture,
        config.train.batch_size,
        max_rows=config.train.eval_rows,
        bidirectional_prefix=config.format.bidirectional_prefix,
    )


def batches_of(planned: EvalPlan) -> Iterator[Batch]:
    """Yield the batches."""
    for step in range(planned.n_steps):
        yield planned.plan.batch(step)
