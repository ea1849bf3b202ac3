"""Which mixture and split plays which part in a run."""

from typing import NamedTuple

from ift_jax.config.schema import Config
from ift_jax.errors import UserError


class MixtureSplit(NamedTuple):
    """A mixture and one of its splits."""

    name: str
    split: str
    field: str  # The config field that names the mixture, for messages.


def mixture_and_split(config: Config, which: str) -> MixtureSplit:
    """The mixture and split that a config names for a part.

    Args:
        config: The run's config.
        which: "train", "eval" (unseen examples of trained tasks) or "heldout" (unseen tasks).

    Raises:
        UserError: The config names no mixture for this part.
    """
    data = config.data
    chosen = {
        "train": MixtureSplit(data.mixture, data.split, "data.mixture"),
        "eval": MixtureSplit(
            data.eval_mixture or data.mixture, data.eval_split, "data.eval_mixture"
        ),
        "heldout": MixtureSplit(data.heldout_mixture, data.heldout_split, "data.heldout_mixture"),
    }[which]
    if not chosen.name:
        raise UserError(f"{chosen.field} is empty; expected the name of a SeqIO task or mixture")
    return chosen
