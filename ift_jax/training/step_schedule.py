"""What is due after which step: a log line, a checkpoint, an evaluation, a preview."""

from typing import NamedTuple

from ift_jax.config.schema import TrainConfig


class Due(NamedTuple):
    """What to do after a step."""

    log: bool
    evaluate: bool
    checkpoint: bool
    preview: bool
    stop: bool  # Whether to end the run before its last step.

    @property
    def interrupts_training(self) -> bool:
        """Whether the devices do something other than training steps."""
        return self.evaluate or self.checkpoint or self.preview


class StepSchedule:
    """The config's intervals, applied to a step."""

    def __init__(self, config: TrainConfig, n_steps: int):
        """Take the section `train` of a config, and the number of steps of the whole run."""
        self._config = config
        self._n_steps = n_steps

    def at(self, step: int, *, stopping: bool = False) -> Due:
        """Return what is due after a step.

        The last step is logged, evaluated, saved and previewed, whatever the intervals.

        Args:
            step: The number of steps done, from 1.
            stopping: Whether the run was asked to stop. It then saves, and skips the evaluation
                that ranks checkpoints, because the grace period of a preemption is short.
        """
        config = self._config
        is_last = step == self._n_steps
        checkpoint = _is_due(step, config.save_every) or is_last or stopping
        ranks_checkpoint = is_last or (checkpoint and config.keep_best > 0)
        preview = _is_due(step, config.preview_every) or is_last
        return Due(
            log=_is_due(step, config.log_every) or is_last,
            evaluate=_is_due(step, config.eval_every) or (ranks_checkpoint and not stopping),
            checkpoint=checkpoint,
            preview=preview and config.preview_prompts > 0,
            stop=stopping,
        )


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
