"""Which checkpoints a run keeps: the newest and the best, whatever its eval losses are."""

import math

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ift_jax.checkpoint import retention as retention_module
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.retention import RATINGS_FILE, Ranking, Retention
from ift_jax.config.schema import TrainConfig
from ift_jax.errors import UserError

NAN = float("nan")


def save(checkpoints, step, eval_loss=None, **options):
    """Saves as the loop does: the eval loss of a checkpoint is computed after its save began."""
    checkpoints.save(step, {"weights": jnp.full(3, step)}, **options)
    if eval_loss is not None:
        checkpoints.rate(step, eval_loss)


def save_all(workdir, losses, first=1, **options):
    """Saves a checkpoint for each loss; returns the steps that are kept in the end."""
    checkpoints = Checkpoints(str(workdir), **options)
    for step, eval_loss in enumerate(losses, first):
        save(checkpoints, step, eval_loss)
    checkpoints.close()
    return Checkpoints(str(workdir), read_only=True).steps()


def test_a_loss_that_is_not_finite_takes_no_place_among_the_best(tmp_path):
    assert save_all(tmp_path, [1.0, NAN, 3.0, math.inf, NAN], keep=1, keep_best=1) == [1, 5]


def test_the_last_checkpoint_replaces_the_best_one_if_it_is_better(tmp_path):
    assert save_all(tmp_path, [3.0, 2.0, 2.5, 1.0], keep=1, keep_best=1) == [4]


def test_a_resumed_run_knows_the_losses_of_the_run_before(tmp_path):
    assert save_all(tmp_path, [1.0, 2.0, 3.0], keep=1, keep_best=1) == [1, 3]
    assert save_all(tmp_path, [4.0, NAN], first=4, keep=1, keep_best=1) == [1, 5]


def test_a_checkpoint_of_a_bad_streak_rolls_no_good_one_out(tmp_path):
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2, 3):
        save(checkpoints, step)
    save(checkpoints, 4, bad_streak=1)
    checkpoints.close()
    # A run that is stopped in a streak again and again, and resumes each time.
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    save(checkpoints, 5, bad_streak=2)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 3, 5]
    save(checkpoints, 6)
    checkpoints.close()
    assert Checkpoints(str(tmp_path), read_only=True).steps() == [3, 6]


def test_opening_a_run_removes_nothing(tmp_path):
    assert save_all(tmp_path, [1.0, 2.0, 3.0], keep=2, keep_best=1) == [1, 2, 3]
    Checkpoints(str(tmp_path), keep=1).close()
    assert Checkpoints(str(tmp_path), read_only=True).steps() == [1, 2, 3]


def test_the_rating_of_a_checkpoint_that_was_never_completed_is_forgotten(tmp_path):
    save_all(tmp_path, [2.0], keep=1, keep_best=1)
    retention = Retention(str(tmp_path), keep=1, keep_best=1)
    retention.rate(2, eval_loss=1.0)
    retention.forget_after(1)
    assert retention.kept([1, 2, 3]) == {1, 3}


def test_a_damaged_file_of_ratings_is_named(tmp_path):
    (tmp_path / RATINGS_FILE).write_text('{"1": {"los": 2}}')
    with pytest.raises(UserError, match=f"{RATINGS_FILE}: expected the ratings"):
        Checkpoints(str(tmp_path))


def test_the_best_by_another_metric_are_kept_and_ratings_by_what_came_before_do_not_count(tmp_path):
    by_loss = Retention(str(tmp_path), keep=1, keep_best=1)
    for step, loss in ((1, 0.1), (2, 0.2)):
        by_loss.rate(step, eval_loss=loss)
    largest = Ranking("eval/overall/exact_match", smaller_is_better=False)
    retention = Retention(str(tmp_path), keep=1, keep_best=1, ranking=largest)
    for step, value in ((2, 0.5), (3, NAN), (4, 0.75), (5, 0.25), (6, math.inf), (7, 0.0)):
        retention.rate(step, value=value)
    assert retention.kept(range(1, 8)) == {4, 7}
    # A resumed run knows them; one that ranks by something else uses none of them.
    again = Retention(str(tmp_path), keep=1, keep_best=2, ranking=largest)
    assert again.kept(range(1, 8)) == {2, 4, 7}
    smallest = Ranking("eval/overall/exact_match", smaller_is_better=True)
    assert Retention(str(tmp_path), keep=1, keep_best=1, ranking=smallest).kept(range(1, 7)) == {
        5,
        6,
    }
    other = Ranking("eval/overall/rouge_l", smaller_is_better=False)
    assert Retention(str(tmp_path), keep=1, keep_best=1, ranking=other).kept(range(1, 8)) == {7}
    assert Retention(str(tmp_path), keep=1, keep_best=1).kept(range(1, 8)) == {1, 7}


@settings(max_examples=100)
@given(
    keep=st.integers(1, 3),
    keep_best=st.integers(0, 3),
    ratings=st.lists(
        st.tuples(st.none() | st.sampled_from([1.0, 2.0, 3.0, NAN, math.inf]), st.integers(0, 1)),
        max_size=12,
    ),
)
def test_no_order_of_losses_ever_loses_a_good_checkpoint(keep, keep_best, ratings):
    """After each save the best so far, the newest good ones, and the newest are there."""
    there = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention_module, "write", lambda path, content: None)
        retention = Retention("none", keep=keep, keep_best=keep_best)
        for step, (eval_loss, bad_streak) in enumerate(ratings, 1):
            retention.rate(step, bad_streak=bad_streak)
            there = retention.kept([*there, step])
            finite = [
                (loss, -earlier)
                for earlier, (loss, _) in enumerate(ratings[: step - 1], 1)
                if loss is not None and math.isfinite(loss)
            ]
            good = [earlier for earlier, (_, bad) in enumerate(ratings[:step], 1) if not bad]
            best = [-negative for _, negative in sorted(finite)[:keep_best]]
            assert there == {step, *good[-keep:], *best}
            retention.rate(step, eval_loss=eval_loss)


def test_the_best_checkpoint_is_the_best_one_that_is_there(tmp_path):
    largest = Ranking("eval/overall/exact_match", smaller_is_better=False)
    retention = Retention(str(tmp_path), keep=1, keep_best=0, ranking=largest)
    assert retention.best([1, 2]) is None
    for step, value in ((1, 0.25), (2, 0.75), (3, 0.5), (4, NAN), (5, 0.5), (6, 0.75)):
        retention.rate(step, value=value)
    assert retention.best(range(1, 7)) == (6, 0.75, None)  # The newest of equal ones.
    assert retention.best([1, 2, 3]) == (2, 0.75, None)  # The newer one was as good, not better.
    assert retention.best([1, 3, 4, 5]) == (5, 0.5, 6)
    assert retention.best([4]) is None
    # By the loss, which nothing measured.
    assert Retention(str(tmp_path), keep=1, keep_best=0).best([1, 2, 3]) is None


@pytest.mark.parametrize(
    ("metric", "mode", "smaller"),
    [
        ("eval_loss", "auto", True),
        ("heldout_loss", "auto", True),
        ("eval/overall/exact_match", "auto", False),
        ("eval/overall/distance", "min", True),
        ("eval_loss", "max", False),
    ],
)
def test_a_ranking_follows_from_the_config(metric, mode, smaller):
    train = TrainConfig(best_metric=metric, best_mode=mode)
    assert Ranking.of(train) == (metric, smaller)
