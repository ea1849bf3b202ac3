"""A run's checkpoints: Orbax, asynchronous, atomic, the newest and the best kept."""

import os
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from ift_jax.errors import UserError
from ift_jax.io.paths import absolute, place
from ift_jax.sharding.trees import checksum

METRIC = "eval_loss"


class Checkpoints:
    """The folder `checkpoints/` of a workdir.

    A step's folder appears under its final name only when all of it is on disk, so whatever
    `latest_step` names is whole; what a killed process left half-written is removed.
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
        """Opens the folder; makes and cleans it unless it is only read.

        The newest `keep` checkpoints stay, and besides `keep_best` of the lowest eval loss.
        `in_flight` bytes may be copied for writing at a time; not less than one array.
        """
        self.path = os.path.join(absolute(workdir), "checkpoints")
        if read_only and not place(self.path).is_dir():
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
            # Orbax's own `read_only` does no more than this where nothing is saved, and warns.
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(kept),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
            ),
        )

    def latest_step(self) -> int | None:
        """The newest whole checkpoint's step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Every whole checkpoint's step, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, eval_loss: float | None = None) -> None:
        """Starts writing `state`; returns as soon as the arrays are copied from the devices."""
        metrics = None if eval_loss is None else {METRIC: eval_loss}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics, force=True)

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Reads a step into the shapes, dtypes and shardings of `abstract_state`.

        Raises:
            UserError: the checkpoint holds other arrays than the config describes.
        """
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(abstract_state))
        except (ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:300]
            raise UserError(
                f"{self.path}/{step}: does not fit the config (other model, optimizer "
                f"or mixture?): {why}"
            ) from error

    def restore_parts(self, step: int, item: dict[str, Any]) -> Any:
        """Reads only these parts of a step's state ("params", ...), each whole, as `item` is."""
        restore_args = ocp.checkpoint_utils.construct_restore_args(item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(os.path.join(self.path, str(step), "default"), args)

    def wait(self) -> None:
        """Blocks until what was being written is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self.wait()
        self._manager.close()


def check_frozen(frozen: Any, known: jax.Array, where: str) -> None:
    """Refuses frozen parameters, read from `where`, that are not those the run began with."""
    if int(jax.jit(checksum)(frozen)) != int(known):
        raise UserError(
            f"config.model.init_from {where}: its weights are not those that this run "
            "was trained on; put the same model there"
        )
