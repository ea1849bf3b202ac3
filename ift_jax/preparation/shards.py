"""The unit of preparation: one shard of a split, in one variant, becomes one part of a store."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ift_jax.data.store import part_path

if TYPE_CHECKING:
    import seqio

EXAMPLES_PER_SHARD = 20_000
_MAX_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a store that is to be made.

    Attributes:
        task: The task's name.
        split: The split's name.
        shard: Which shard of the split, below `shards`.
        shards: The number of shards.
        variant: Which variant of the examples.
        examples: About how many examples it will have; decides whether processes pay.
        folder: The folder of the store that is being built.
    """

    task: str
    split: str
    shard: int
    shards: int
    variant: int
    examples: int
    folder: Path

    @property
    def path(self) -> Path:
        """The part's file."""
        return part_path(self.folder, self.variant * self.shards + self.shard)

    @property
    def report_path(self) -> Path:
        """The file of the part's report, which is written last: where it is, the part is made."""
        return self.path.with_suffix(".json")


def parts_of_store(task: "seqio.Task", split: str, variants: int, folder: Path) -> list[Part]:
    """Return the parts of a store in their order, which the task alone decides."""
    count = task.num_input_examples(split) or EXAMPLES_PER_SHARD
    shards = min(max(-(-count // EXAMPLES_PER_SHARD), 1), _MAX_SHARDS)
    return [
        Part(task.name, split, shard, shards, variant, count // shards, folder)
        for variant in range(variants)
        for shard in range(shards)
    ]
