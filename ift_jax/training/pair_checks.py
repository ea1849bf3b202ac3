"""Whether the data of a run is what its loss is for: pairs, or answers to imitate."""

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError


def check_pairs(config: Config, which: str, mixture: Mixture) -> None:
    """Check that a mixture's examples are pairs if the run trains on pairs, and only then.

    The held-out mixture of a run on pairs may have answers, whose plain loss is computed.

    Args:
        config: The run's config.
        which: "train", "eval" or "heldout".
        mixture: The mixture.

    Raises:
        UserError: A task has other examples; names it and the cure.
    """
    trains_pairs = config.preference.trains_pairs
    may_be_answers = not trains_pairs or (which == "heldout" and not mixture.holds_pairs)
    for task, store in zip(mixture.tasks, mixture.stores, strict=True):
        n_pairs, n_examples = store.manifest["pairs"], store.manifest["examples"]
        if n_pairs == (0 if may_be_answers else n_examples):
            continue
        where = f"task {task!r} of the {which} mixture"
        if not trains_pairs:
            raise UserError(
                f"{where}: {n_pairs:,} of its {n_examples:,} examples are pairs of a chosen and a"
                " rejected answer; set preference.loss, such as --config.preference.loss=sigmoid,"
                " to train on them"
            )
        raise UserError(
            f"{where}: {n_examples - n_pairs:,} of its {n_examples:,} examples are no pairs of a"
            f" chosen and a rejected answer, which preference.loss={config.preference.loss!r}"
            " expects"
        )
