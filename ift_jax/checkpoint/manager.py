"""A run's checkpoints: written by Orbax, asynchronous and atomic; the newest and best are kept.

What of a run's state they hold, and what is restored from them, is described in
`ift_jax.training.resume`.
"""

import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from ift_jax.checkpoint.read_checkpoint import (
    UnreadableCheckpoint,
    read_parts,
    with_checksums,
)
from ift_jax.checkpoint.retention import BY_LOSS, BestCheckpoint, Ranking, Retention
from ift_jax.checkpoint.save_errors import save_errors
from ift_jax.errors import UserError, WriteError
from ift_jax.io.outputs import check_space
from ift_jax.io.paths import absolute, as_path, is_remote
from ift_jax.io.write_errors import write_errors
from ift_jax.sharding.checksums import former_tree_checksum, tree_checksum

# Orbax compresses a checkpoint: random float32 numbers by about 8%.
_LEAST_SHARE = 0.8


class Checkpoints:
    """The folder `checkpoints/` of a workdir.

    A step's folder gets its final name only when all of it is on disk, so the step that
    `latest_step` returns is complete. What a killed process left incomplete is removed.

    Attributes:
        path: The absolute path of the folder.
    """

    def __init__(
        self,
        workdir: str,
        *,
        keep: int = 1,
        keep_best: int = 0,
        ranking: Ranking = BY_LOSS,
        read_only: bool = False,
        in_flight: int = 96 * 10**9,
    ):
        """Open the folder; create it and remove incomplete checkpoints unless `read_only`.

        Args:
            workdir: The workdir, local or in a bucket.
            keep: How many of the newest checkpoints to keep.
            keep_best: How many of the best ones (`rate`) to keep besides.
            ranking: What makes a checkpoint the best one.
            read_only: Whether to leave the folder as it is.
            in_flight: How many bytes may be copied for writing at a time, at least those of the
                largest array.

        Raises:
            UserError: `read_only` is set, and there is no such folder.
            WriteError: The folder cannot be made.
        """
        self.path = os.path.join(absolute(workdir), "checkpoints")
        if read_only and not as_path(self.path).is_dir():
            raise UserError(f"{workdir}: no checkpoints here; expected the workdir of a run")
        self._has_saved = False
        self._retention = Retention(
            absolute(workdir), keep=keep, keep_best=keep_best, ranking=ranking
        )
        self._saving: int | None = None  # The step of the last save.
        with write_errors(self.path):
            self._manager = ocp.CheckpointManager(
                self.path,
                item_handlers=ocp.StandardCheckpointHandler(save_concurrent_gb=in_flight / 10**9),
                # Orbax has an option `read_only`, which does no more than these two where nothing
                # is saved, and prints a warning.
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=self._retention,
                    cleanup_tmp_directories=not read_only,
                    create=not read_only,
                ),
            )
        self._retention.forget_after(self.latest_step() or 0)

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def best(self) -> BestCheckpoint | None:
        """Return the best complete checkpoint; None if the ranking's metric of none is known."""
        return self._retention.best(self.steps())

    def check_space(self, state: Any) -> None:
        """Check on the first process that the disk has room for one more checkpoint.

        Args:
            state: Arrays, or their shapes and dtypes.

        Raises:
            UserError: It has not.
        """
        if is_remote(self.path) or jax.process_index():
            return
        n_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
        check_space(self.path, n_bytes * _LEAST_SHARE, "a checkpoint in")

    def save(self, step: int, state: dict[str, Any], *, bad_streak: int = 0) -> None:
        """Start writing a checkpoint; return once the arrays are copied from the devices.

        Checkpoints that are no longer kept are removed when this one is complete.

        Args:
            step: The step of the checkpoint.
            state: Trees of arrays by name; `restore` may read some of them only.
            bad_streak: The number of steps right before it that were not finite. Such a checkpoint
                takes no other's place among the newest.

        Raises:
            UserError: The disk has no room for it.
            WriteError: This checkpoint, or the one before it, cannot be written.
        """
        if bad_streak:
            self._retention.rate(step, bad_streak=bad_streak)
        args = ocp.args.StandardSave(with_checksums(state))
        self.wait()
        self.check_space(state)
        self._saving = step
        with self._failed_save():
            self._manager.save(step, args=args, force=True)
        self._has_saved = True

    def rate(self, step: int, eval_loss: float | None = None, value: float | None = None) -> None:
        """Rank a checkpoint, which may still be being written, for `keep_best`.

        Args:
            step: The step of the checkpoint.
            eval_loss: Its loss on examples that are not trained on; None if that is not known.
            value: The metric of the ranking; None if that is not known, or is the eval loss.
        """
        self._retention.rate(step, eval_loss=eval_loss, value=value)

    def restore(
        self, step: int, wanted: dict[str, Any], other: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Read some parts of a checkpoint ("params", ...) and compare them with their checksums.

        Args:
            step: The step of the checkpoint.
            wanted: The shapes, dtypes and shardings of these parts, each complete.
            other: The same in another structure, in which they may have been saved.

        Raises:
            UnreadableCheckpoint: The checkpoint is damaged; says which, and which one is before it.
            UserError: The checkpoint holds other arrays than the config describes.
        """
        folder = os.path.join(self.path, str(step))
        try:
            return read_parts(folder, wanted, _say_once, other)
        except UnreadableCheckpoint as error:
            why = f"{folder}: is damaged ({error}){self._cure(step)}"
            raise UnreadableCheckpoint(why) from error

    def put_aside(self, step: int) -> str:
        """Move a checkpoint out of the folder; return where it is now.

        Every process calls this.
        """
        self.wait()
        target = os.path.join(os.path.dirname(self.path), "damaged", f"{step}-{time.time_ns()}")
        if jax.process_index() == 0:
            as_path(os.path.dirname(target)).mkdir(parents=True, exist_ok=True)
            as_path(os.path.join(self.path, str(step))).rename(target)
        multihost_utils.sync_global_devices(f"put aside {step}")
        self._manager.reload()
        self._retention.forget_after(self.latest_step() or 0)
        return target

    def _cure(self, step: int) -> str:
        """Return how to go on without a checkpoint, as the end of a message."""
        earlier = [other for other in self.steps() if other < step]
        if not earlier:
            return "; there is none before it"
        return (
            f"; the one before it is step {earlier[-1]}: name it with --step, or move the damaged "
            "folder away"
        )

    def wait(self) -> None:
        """Block until everything that is being written is on disk.

        Raises:
            WriteError: It could not be written.
        """
        with self._failed_save():
            self._manager.wait_until_finished()

    def raise_failed_save(self) -> None:
        """Raise the error of a save that has failed in the background; never block.

        Raises:
            WriteError: As `wait`.
        """
        if not self._manager.is_saving_in_progress():
            self.wait()

    @contextlib.contextmanager
    def _failed_save(self) -> Iterator[None]:
        """Turn the error of a failed save into a line that says what is left."""
        try:
            with save_errors(os.path.join(self.path, str(self._saving))):
                yield
        except WriteError as error:
            newest = self.latest_step()
            left = "there is none before it" if newest is None else f"step {newest} is complete"
            raise WriteError(f"{error}; {left}") from error

    def close(self) -> None:
        """Wait, remove what the last ratings leave over, and release the folder.

        If nothing was saved, nothing is removed, whatever `keep` and `keep_best` are now.
        """
        self.wait()
        if self._has_saved:
            steps = self.steps()
            for step in sorted(set(steps) - self._retention.kept(steps)):
                self._manager.delete(step)
        self._manager.close()


def saved_steps(workdir: str) -> list[int]:
    """Return the steps of the complete checkpoints of a workdir, in ascending order.

    A process may call this alone: unlike `Checkpoints` it waits for no other.
    """
    folder = epath.Path(absolute(workdir)) / "checkpoints"
    if not folder.is_dir():
        return []
    found = ocp.path.step.standard_name_format().find_all(folder)
    return sorted(metadata.step for metadata in found)


def check_frozen(frozen: Any, expected_sum: jax.Array, where: str) -> None:
    """Check that frozen parameters are those that a run was trained on.

    Args:
        frozen: The frozen parameters, in the form in which the run holds them.
        expected_sum: The checksum in the run's checkpoint, uint32.
        where: The model that they were read from.

    Raises:
        UserError: They are not.
    """
    sums = jax.jit(lambda tree: (tree_checksum(tree), former_tree_checksum(tree)))(frozen)
    if int(expected_sum) not in map(int, sums):
        raise UserError(
            f"config.model.init_from {where}: its weights are not those that this run "
            "was trained on; put the same model there"
        )


@functools.cache
def _say_once(line: str) -> None:
    """Print a warning, the same one only once in a process."""
    if jax.process_index() == 0:
        print(f"warning: {line}", file=sys.stderr)
