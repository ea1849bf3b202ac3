"""Small complete runs inside the test's process, which can be killed or stopped at any event.

A process that is killed loses what it did not write. So here an exception takes the place of the
signal, and the checkpoint that was being written is removed in half of the cases. What takes long
is compiled once: the run's program, its eval steps, and its initial state.
"""

import contextlib
import functools
import json
import shutil
import signal

import jax
import numpy as np

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.commands import main
from ift_jax.decoding import Generator
from ift_jax.sharding import mesh
from ift_jax.training import evaluations, first_state, loop, previews, resume, setup, train_program
from ift_jax.training.bad_steps import BadSteps
from ift_jax.training.eval_loss import EvalLoss
from ift_jax.training.metric_writer import MetricWriter
from tests.made_once import made_once
from tests.training import runs

SETTINGS = [
    "data.max_length=64",
    "train.steps=10",
    "train.batch_size=4",
    "train.log_every=3",
    "train.save_every=4",
    "train.eval_every=5",
    "train.preview_every=5",
    "train.max_to_keep=2",
    "train.keep_best=1",
    "evaluation.batch_size=2",
]
# What a run does with its files and devices; an event is the start or the end of such a call.
CALLS = [
    (MetricWriter, "write"),
    (previews, "append_json_lines"),
    (Checkpoints, "save"),
    (Checkpoints, "rate"),
    (EvalLoss, "_sums"),
    (Generator, "_generate_blocks"),
]


class Killed(BaseException):
    """Ends a run as a kill does."""


class InProcess:
    """Starts runs of one config, and counts their events."""

    def __init__(self, monkeypatch, overrides=()):
        """Makes the runs of this test share what was compiled, and counts calls."""
        self._overrides = overrides
        self._at_event = None
        self._do = None
        self.events = []
        self.bad_steps = set()  # Their loss weights are infinite.
        self.n_steps_done = 0
        # One device, whose collectives cost nothing.
        monkeypatch.setattr(train_program, "make_mesh", _mesh_of_one_device)
        monkeypatch.setattr(loop, "prepare_run", _prepared_once)
        monkeypatch.setattr(evaluations, "EvalLoss", _eval_loss_once)
        monkeypatch.setattr(first_state, "initial_state", _initial_state_once)
        monkeypatch.setattr(train_program.TrainProgram, "compile_in_background", _compiled_once)
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name), name))
        watch = BadSteps.watch

        def count_steps(bad_steps, step, bad_streak):
            self.n_steps_done = step
            watch(bad_steps, step, bad_streak)

        monkeypatch.setattr(BadSteps, "watch", count_steps)
        device_batch = setup.Run.device_batch

        def with_bad_steps(run, step):
            batch = device_batch(run, step)
            if step + 1 in self.bad_steps:
                batch["loss_weights"] = batch["loss_weights"] * np.float32(np.inf)
            return batch

        monkeypatch.setattr(setup.Run, "device_batch", with_bad_steps)

    def _counted(self, function, name):
        @functools.wraps(function)
        def counted(*args, **kwargs):
            self._event(f"{name} starts")
            result = function(*args, **kwargs)
            if name == "_generate_blocks":
                result = list(result)
            self._event(f"{name} ends")
            return result

        return counted

    def _event(self, name):
        self.events.append(name)
        if len(self.events) == self._at_event:
            self._do()

    def train(self, workdir, overrides=(), flags=()):
        """Runs to the end; returns the exit status."""
        self.events = []
        arguments = runs.command(
            workdir, overrides=[*SETTINGS, *self._overrides, *overrides], data=_data()
        )
        return main.main([*arguments[3:], *flags])

    def kill(self, workdir, at_event, lose_save=False):
        """Kills a run at an event; returns False if it came to its end before."""
        before = _steps(workdir)

        def kill():
            raise Killed

        with self._hook(at_event, kill), contextlib.suppress(Killed):
            self.train(workdir)
            return False
        newest = max(_steps(workdir), default=None)
        if lose_save and newest not in before and newest is not None:
            shutil.rmtree(workdir / "checkpoints" / str(newest))
        return True

    def stop(self, workdir, at_event, flags=()):
        """Sends SIGTERM at an event; returns the events from there on."""
        with self._hook(at_event, lambda: signal.raise_signal(signal.SIGTERM)):
            assert self.train(workdir, flags=flags) == 0
        return self.events[at_event:]

    @contextlib.contextmanager
    def _hook(self, at_event, do):
        self._at_event, self._do = at_event, do
        try:
            yield
        finally:
            self._at_event = None


def _steps(workdir):
    folder = workdir / "checkpoints"
    return (
        {int(path.name) for path in folder.iterdir() if path.name.isdigit()}
        if folder.exists()
        else set()
    )


def records(workdir):
    """The lines of `metrics.jsonl` without times, strictly read."""

    def refuse(constant):
        raise ValueError(constant)

    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    parsed = [json.loads(line, parse_constant=refuse) for line in lines]
    return [{name: v for name, v in record.items() if name != "time"} for record in parsed]


def samples(workdir):
    return (workdir / "samples.jsonl").read_text().splitlines()


def ratings(workdir):
    return json.loads((workdir / "checkpoints.json").read_text())


def final_state(workdir):
    """The arrays of the newest checkpoint, and its step."""
    checkpoints = Checkpoints(str(workdir), read_only=True)
    step = checkpoints.latest_step()
    state = checkpoints._manager.restore(step)
    return step, [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def assert_same_run(workdir, expected):
    """All that a run leaves is what the uninterrupted one left, each line once."""
    assert records(workdir) == records(expected)
    assert samples(workdir) == samples(expected)
    assert ratings(workdir).items() >= ratings(expected).items()  # A stop saves besides.
    (step, leaves), (expected_step, expected_leaves) = final_state(workdir), final_state(expected)
    assert step == expected_step
    for ours, theirs in zip(leaves, expected_leaves, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@functools.cache
def _data():
    return made_once("in_process.jsonl", functools.partial(runs.write_data, n=300))


_make_mesh = mesh.make_mesh
_prepare_run = setup.prepare_run
_initial_state = resume.initial_state
_compile = train_program.TrainProgram.compile_in_background


def _mesh_of_one_device(sizes, devices=None):
    return _make_mesh(sizes, jax.devices()[:1])


def _prepared_once(config, log, run_tokenizer):
    return _prepared(config)


@functools.cache
def _prepared(config):
    return _prepare_run(config, lambda line: None)


@functools.cache
def _eval_loss_once(run, mixture):
    return EvalLoss(run, mixture)


@functools.cache
def _compiled_once(program):
    return _compile(program)


@functools.cache
def _initial_arrays(run):
    return jax.device_get(_initial_state(run))


def _initial_state_once(run):
    return jax.device_put(_initial_arrays(run), run.program.state_shardings)
