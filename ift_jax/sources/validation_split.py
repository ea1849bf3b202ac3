"""A validation split that is carved out of training data by a hash of the positions alone."""

import functools

from ift_jax.data.randomness import hash64


def is_validation(index: int, one_in: int) -> bool:
    """Return whether the `index`-th example is for validation: one of every `one_in`.

    Of each block of `one_in` examples a hash of the block's number chooses one, so that examples
    which are appended move no other.
    """
    block, position = divmod(index, one_in)
    return position == _chosen(block, one_in)


@functools.lru_cache(maxsize=1)  # Examples of one block come one after another.
def _chosen(block: int, one_in: int) -> int:
    return hash64("validation", block) % one_in
