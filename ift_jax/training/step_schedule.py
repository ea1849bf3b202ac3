"""What is due after which step: a log line, a checkpoint, an evaluation, a preview."""

from typing import NamedTuple

from ift_jax.config.schema import TrainConfig


class Due(NamedTuple):
    """What to do after a step, in this order."""

    log: bool
    checkpoint: bool
    evaluate: bool
    preview: bool
    stop: bool  # Whether the run was asked to stop.

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

        The last step is logged, saved, evaluated and previewed, whatever the intervals. Before the
        first step there is a preview and, in a run that evaluates at intervals, an evaluation, so
        that what training changes can be seen.

        Args:
            step: The number of steps done.
            stopping: Whether the run was asked to stop. It then only saves, because the grace
                period of a preemption is short; what else is due is done when it resumes.
        """
        config = self._config
        is_last = step == self._n_steps
        scheduled = _is_due(step, config.save_every) or is_last
        ranks_checkpoint = is_last or (scheduled and config.keep_best > 0)
        is_first = step == 0 and config.eval_every > 0
        evaluate = _is_due(step, config.eval_every) or ranks_checkpoint or is_first
        preview = _is_due(step, config.preview_every) or is_last or step == 0
        return Due(
            log=_is_due(step, config.log_every) or is_last,
            checkpoint=scheduled or stopping,
            evaluate=evaluate and not stopping,
            preview=preview and config.preview_prompts > 0 and not stopping,
            stop=stopping,
        )


def _is_due(step: int, every: int) -> bool:
    return step > 0 and every > 0 and step % every == 0
