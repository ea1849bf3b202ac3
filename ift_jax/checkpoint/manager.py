"""A run's checkpoints: written by Orbax, asynchronous and atomic; the newest and best are kept.

What of a run's state they hold, and what is restored from them, is described in
`ift_jax.training.resume`.
"""

import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from ift_jax.errors import UserError
from ift_jax.io.paths import absolute, as_path
from ift_jax.sharding.trees import checksum

METRIC = "eval_loss"  # Ranks checkpoints; lower is better.


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
        read_only: bool = False,
        in_flight: int = 96 * 10**9,
    ):
        """Open the folder; create it and remove incomplete checkpoints unless `read_only`.

        Args:
            workdir: The workdir, local or in a bucket.
            keep: How many of the newest checkpoints to keep.
            keep_best: How many of those with the lowest eval loss to keep besides.
            read_only: Whether to leave the folder as it is.
            in_flight: How many bytes may be copied for writing at a time, at least those of the
                largest array.

        Raises:
            UserError: `read_only` is set, and there is no such folder.
        """
        self.path = os.path.join(absolute(workdir), "checkpoints")
        if read_only and not as_path(self.path).is_dir():
            raise UserError(f"{workdir}: no checkpoints here; expected the workdir of a run")
        kept: list[Any] = [policies.LatestN(keep)]
        if keep_best:
            kept.append(
                policies.BestN(
                    get_metric_fn=lambda metrics: metrics[METRIC],
                    reverse=True,
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            self.path,
            item_handlers=ocp.StandardCheckpointHandler(save_concurrent_gb=in_flight / 10**9),
            # Orbax has an option `read_only`, which does no more than these two where nothing is
            # saved, and prints a warning.
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
            ),
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest complete checkpoint, or None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Return the steps of all complete checkpoints, in ascending order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, eval_loss: float | None = None) -> None:
        """Start writing a checkpoint; return once the arrays are copied from the devices.

        Args:
            step: The step of the checkpoint.
            state: A tree of arrays.
            eval_loss: Ranks the checkpoint for `keep_best`.
        """
        metrics = None if eval_loss is None else {METRIC: eval_loss}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Read a checkpoint into the shapes, dtypes and shardings of `abstract_state`.

        Raises:
            UserError: The checkpoint holds other arrays than the config describes.
        """
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.path}/{step}: does not fit the config (other model, optimizer "
                f"or mixture?): {reason}"
            ) from error

    def restore_parts(self, step: int, item: dict[str, Any]) -> Any:
        """Read only some entries of a checkpoint's state.

        Args:
            step: The step of the checkpoint.
            item: The shapes, dtypes and shardings of these entries ("params", ...), each complete.
        """
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(os.path.join(self.path, str(step), "default"), args)

    def wait(self) -> None:
        """Block until everything that is being written is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then releases the folder."""
        self.wait()
        self._manager.close()


def check_frozen(frozen: Any, expected_sum: jax.Array, where: str) -> None:
    """Check that frozen parameters are those that a run was trained on.

    Args:
        frozen: The frozen parameters, in the form in which the run holds them.
        expected_sum: The checksum in the run's checkpoint, uint32.
        where: The model that they were read from.

    Raises:
        UserError: They are not.
    """
    if int(jax.jit(checksum)(frozen)) != int(expected_sum):
        raise UserError(
            f"config.model.init_from {where}: its weights are not those that this run "
            "was trained on; put the same model there"
        )
