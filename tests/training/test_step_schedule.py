"""What is due after which step of a run."""

import pytest

from ift_jax.config.schema import TrainConfig
from ift_jax.training.step_schedule import StepSchedule

N_STEPS = 60


def steps_with(field, stopping=False, **config):
    """The steps of a run after which something is due."""
    schedule = StepSchedule(TrainConfig(**config), N_STEPS)
    steps = range(1, N_STEPS + 1)
    return [step for step in steps if getattr(schedule.at(step, stopping=stopping), field)]


def test_intervals_count_from_the_start_and_the_last_step_has_everything():
    config = dict(log_every=25, save_every=20, eval_every=50, preview_every=35)
    assert steps_with("log", **config) == [25, 50, 60]
    assert steps_with("checkpoint", **config) == [20, 40, 60]
    assert steps_with("evaluate", **config) == [50, 60]
    assert steps_with("preview", **config) == [35, 60]
    assert steps_with("stop", **config) == []


def test_an_interval_of_zero_means_only_at_the_end():
    config = dict(log_every=7, save_every=0, eval_every=0, preview_every=0)
    for field in ("checkpoint", "evaluate", "preview"):
        assert steps_with(field, **config) == [60]


def test_without_prompts_there_is_no_preview():
    assert steps_with("preview", preview_every=5, preview_prompts=0) == []


def test_ranked_checkpoints_are_evaluated_whenever_they_are_saved():
    config = dict(save_every=20, eval_every=0, keep_best=1)
    assert steps_with("evaluate", **config) == steps_with("checkpoint", **config) == [20, 40, 60]


def test_a_run_that_is_asked_to_stop_only_saves():
    config = TrainConfig(save_every=20, eval_every=30, preview_every=30, keep_best=1)
    schedule = StepSchedule(config, N_STEPS)
    for step in (7, 20, 30, N_STEPS):
        due = schedule.at(step, stopping=True)
        assert due.checkpoint and due.stop and not due.evaluate and not due.preview
    # What was due besides is due when the run resumes at that step.
    assert schedule.at(30).evaluate and schedule.at(30).preview and schedule.at(20).evaluate


def test_before_the_first_step_there_is_a_preview_and_an_evaluation_to_compare_with():
    config = TrainConfig(log_every=1, save_every=1, eval_every=1, preview_every=0)
    due = StepSchedule(config, N_STEPS).at(0)
    assert due.preview and due.evaluate and not (due.log or due.checkpoint)
    config = TrainConfig(log_every=1, save_every=1, eval_every=0, preview_every=0)
    assert not StepSchedule(config, N_STEPS).at(0).evaluate


@pytest.mark.parametrize(("step", "interrupts"), [(10, False), (20, True), (30, True), (35, True)])
def test_logging_alone_does_not_interrupt_training(step, interrupts):
    config = TrainConfig(log_every=10, save_every=20, eval_every=30, preview_every=35)
    assert StepSchedule(config, N_STEPS).at(step).interrupts_training == interrupts
