"""What is due after which step: a log line, a checkpoint, evaluations, a preview."""

from typing import NamedTuple

from ift_jax.config.schema import TrainConfig
from ift_jax.training.best_metric import is_of_answers


class Due(NamedTuple):
    """What to do after a step, in this order."""

    log: bool
    checkpoint: bool
    evaluate: bool  # The loss of the evaluated mixtures.
    score: bool  # The metrics of answers.
    preview: bool
    stop: bool  # Whether the run was asked to stop.

    @property
    def interrupts_training(self) -> bool:
        """Whether the devices do something other than training steps."""
        return self.evaluate or self.score or self.checkpoint or self.preview


class StepSchedule:
    """The config's intervals, applied to a step."""

    def __init__(self, config: TrainConfig, n_steps: int):
        """Take the section `train` of a config, and the number of steps of the whole run."""
        self._config = config
        self._n_steps = n_steps

    def at(self, step: int, *, stopping: bool = False) -> Due:
        """Return what is due after a step.

        The last step is logged, saved, evaluated and previewed, whatever the intervals; answers are
        scored there in a run that does so at intervals. Before the first step there is a preview
        and, in a run that evaluates at intervals, an evaluation, so that what training changes can
        be seen. Where checkpoints are ranked, what ranks them is evaluated whenever one is saved.

        Args:
            step: The number of steps done.
            stopping: Whether the run was asked to stop. It then only saves, because the grace
                period of a preemption is short; what else is due is done when it resumes.
        """
        config = self._config
        is_last = step == self._n_steps
        scheduled = _is_due(step, config.save_every) or is_last
        ranks = scheduled and config.keep_best > 0
        ranks_by_answers = ranks and is_of_answers(config.best_metric)
        evaluate = (
            _is_due(step, config.eval_every)
            or is_last
            or (ranks and not ranks_by_answers)
            or (step == 0 and config.eval_every > 0)
        )
        score = config.eval_metrics_every > 0 and (
            _is_due(step, config.eval_metrics_every) or is_last or ranks_by_answers or step == 0
        )
        preview = _is_due(step, config.preview_every) or is_last or step == 0
        return Due(
            log=_is_due(step, config.log_every) or is_last,
            checkpoint=scheduled or stopping,
            evaluate=evaluate and not stopping,
            score=score and not stopping,
            preview=preview and config.preview_prompts > 0 and not stopping,
            stop=stopping,
        )


def _is_due(step: int, every: int) -> bool:
    return step > 0 and every > 0 and step % every == 0
