"""What a run does before its first step: what it imports, and which programs it compiles."""

import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.models import build_model
from ift_jax.training.eval_loss import EvalLoss
from tests.small_models import ARCHITECTURES

# What none but other commands, models of others, and the end of a run need.
NOT_IMPORTED = (
    "ift_jax.checkpoint.open_model",
    "ift_jax.inspection.dry_run",
    "ift_jax.interop",
    "ift_jax.planning",
    "ift_jax.preparation.prepare",
    "ift_jax.report.report",
    "ift_jax.serving",
    "ift_jax.sources",
    "matplotlib",
    "seqio",
    "tensorflow",
    "torch",
    "transformers",
)


def test_a_run_with_fresh_parameters_imports_nothing_that_it_does_not_need():
    code = "import sys, ift_jax.commands.train, ift_jax.training.loop; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = out.stdout.split()
    assert "ift_jax.training.previews" in imported
    assert not {name for name in NOT_IMPORTED if name in imported}


def run_with(eval_mixture, heldout):
    """As much of a run as an eval loss reads."""
    program = types.SimpleNamespace(model=build_model(ARCHITECTURES["decoder"]))
    return types.SimpleNamespace(
        program=program, config=Config(), eval=eval_mixture, heldout=heldout
    )


def mixture_of(n_tasks):
    tasks = [f"task_{i}" for i in range(n_tasks)]
    return Mixture(tasks, np.ones(n_tasks), [], [[]] * n_tasks)


@pytest.fixture
def compiled():
    """The number of programs that were compiled."""
    n_compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            n_compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield n_compiled
    jax.monitoring.unregister_event_duration_listener(listen)


def test_mixtures_of_a_run_are_evaluated_by_one_program(monkeypatch, compiled):
    few, many = mixture_of(2), mixture_of(5)
    model = build_model(ARCHITECTURES["decoder"])
    params = jax.jit(model.init)(jax.random.key(0))
    ids = np.random.default_rng(0).integers(1, 40, (2, 16), np.int32)
    batch = {
        "tokens": ids,
        "targets": np.roll(ids, -1, 1),
        "loss_weights": np.ones(ids.shape, np.float32),
        "segment_ids": np.ones(ids.shape, np.int32),
        "positions": np.broadcast_to(np.arange(16, dtype=np.int32), ids.shape),
        "task_ids": np.repeat(np.array([[0], [1]], np.int32), 16, 1),
    }
    monkeypatch.setattr(EvalLoss, "_sums", lambda self, *given: self._eval_step(*given))
    monkeypatch.setattr("ift_jax.training.eval_loss.eval_plan_of_run", lambda *_: None)
    monkeypatch.setattr("ift_jax.training.eval_loss.batches_of", lambda _: [batch])

    run = run_with(many, few)
    compiled.clear()
    losses = [EvalLoss(run, mixture)(params) for mixture in (many, few)]
    assert len(compiled) == 1
    alone = EvalLoss(run_with(few, None), few)(params)
    assert losses[1].task_loss.keys() == {"task_0", "task_1"}
    assert losses[0].task_loss == losses[1].task_loss
    np.testing.assert_allclose(losses[1].loss, alone.loss, rtol=1e-6)
    for task, loss in alone.task_loss.items():
        np.testing.assert_allclose(losses[1].task_loss[task], loss, rtol=1e-6)
