"""Checks of a SeqIO task before any of its records is read."""

import seqio

from ift_jax.errors import UserError, of_users_code


def check_task(task: seqio.Task) -> None:
    """Check what SeqIO itself would only find while it reads, or would raise without a name.

    Raises:
        UserError: The task can only be read from SeqIO's own cache, or SeqIO takes its
            preprocessors for a mistake; names the task.
    """
    if task.requires_caching:
        raise UserError(
            f"task {task.name!r}: its CacheDatasetPlaceholder(required=True) allows no reading "
            "but that of SeqIO's own cache; expected required=False, because a token store takes "
            "the place of that cache"
        )
    with of_users_code(f"task {task.name!r}"):
        _ = task.preprocessors  # SeqIO checks them when they are asked for.
