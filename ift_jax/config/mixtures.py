"""Which mixture and split plays which part in a run."""

from ift_jax.config.schema import Config
from ift_jax.errors import UserError


def mixture_and_split(config: Config, which: str) -> tuple[str, str, str]:
    """The mixture and split of "train", "eval" or "heldout", and the config's field of it."""
    data = config.data
    name, split, field = {
        "train": (data.mixture, data.split, "data.mixture"),
        "eval": (data.eval_mixture or data.mixture, data.eval_split, "data.eval_mixture"),
        "heldout": (data.heldout_mixture, data.heldout_split, "data.heldout_mixture"),
    }[which]
    if not name:
        raise UserError(f"{field} is empty; expected the name of a SeqIO task or mixture")
    return name, split, field
