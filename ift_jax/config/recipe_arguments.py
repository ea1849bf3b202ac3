"""The argument of a recipe: `configs/NAME.py:SIZE` or `configs/NAME.py:SIZE,CHECKPOINT`."""

from collections.abc import Collection

from ift_jax.errors import UserError, did_you_mean


def size_and_checkpoint(argument: str, sizes: Collection[str]) -> tuple[str, str]:
    """Splits a recipe's argument into its size and the checkpoint that it starts from.

    Args:
        argument: "SIZE", "SIZE,CHECKPOINT", or "" for the first of `sizes`. The checkpoint is a
            folder; without one the recipe can be planned and shown, but not trained.
        sizes: The sizes of the recipe.

    Returns:
        The size, and the checkpoint or "".

    Raises:
        UserError: The recipe has no such size.
    """
    size, _, checkpoint = argument.partition(",")
    size = size or next(iter(sizes))
    if size not in sizes:
        near = did_you_mean(size, sizes)
        raise UserError(
            f"--config: expected FILE:SIZE or FILE:SIZE,CHECKPOINT with a size of "
            f"{', '.join(sizes)}; got {argument!r}{near}"
        )
    return size, checkpoint
