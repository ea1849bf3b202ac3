"""The unit of preparation: what is read in one pass, a shard or a whole split, in one variant."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ift_jax.data.randomness import stable_hash
from ift_jax.data.store import part_path

if TYPE_CHECKING:
    import seqio

EXAMPLES_PER_SHARD = 20_000
_MAX_SHARDS = 256


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a store that is to be made, in one pass over a shard of a split.

    A task that may not be read in shards has one part, a pass over the whole split that writes
    several files: the first takes the first `examples_per_file` records, and so on.

    Attributes:
        task: The task's name.
        split: The split's name.
        shard: Which shard of the split, below `shards`.
        shards: The number of shards.
        variant: Which variant of the examples.
        examples: About how many examples it will have; decides whether processes pay.
        folder: The folder of the store that is being built.
        files: The number of files that it writes.
    """

    task: str
    split: str
    shard: int
    shards: int
    variant: int
    examples: int
    folder: Path
    files: int = 1

    def drawn_seed(self, seed: int) -> int:
        """Return the seed that the task's source and preprocessors are given, in a run of `seed`.

        It is the same for all shards: they are those of one order only if one seed reads them all.
        """
        return stable_hash("render", seed, self.task, self.variant, bits=31)

    @property
    def paths(self) -> list[Path]:
        """The part's files, in the order in which they are written."""
        first = (self.variant * self.shards + self.shard) * self.files
        return [part_path(self.folder, first + i) for i in range(self.files)]

    @property
    def report_paths(self) -> list[Path]:
        """The files of the reports of its files."""
        return [path.with_suffix(".json") for path in self.paths]

    @property
    def report_path(self) -> Path:
        """The report that is written last: where it is, the part is made."""
        return self.report_paths[-1]

    @property
    def examples_per_file(self) -> int:
        """How many records a file takes; the last one takes all that are left."""
        return max(-(-self.examples // self.files), 1)


def parts_of_store(task: "seqio.Task", split: str, variants: int, folder: Path) -> list[Part]:
    """Return the parts of a store in their order, which the task alone decides."""
    # Both import TensorFlow.
    from ift_jax.preparation.per_example import may_be_sharded
    from ift_jax.preparation.source_files import count_input_examples

    count = count_input_examples(task, split) or EXAMPLES_PER_SHARD
    files = min(max(-(-count // EXAMPLES_PER_SHARD), 1), _MAX_SHARDS)
    if not may_be_sharded(task):
        return [Part(task.name, split, 0, 1, v, count, folder, files) for v in range(variants)]
    return [
        Part(task.name, split, shard, files, variant, count // files, folder)
        for variant in range(variants)
        for shard in range(files)
    ]
