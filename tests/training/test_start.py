"""A workdir knows its run: what may go on there, what is refused, and what is left untouched."""

import json
import re
import shutil
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.commands.main import main
from ift_jax.training.console import Console
from tests.checkpoint.test_damaged_checkpoints import damage_weights
from tests.training import runs

pytestmark = pytest.mark.usefixtures("one_device")

SETTINGS = [
    "train.steps=6",
    "train.batch_size=8",
    "train.gradient_accumulation_steps=1",
    "train.log_every=2",
    "train.save_every=2",
    "train.eval_every=0",
    "train.keep_best=0",
    "train.max_to_keep=3",
    "train.preview_every=0",
    "train.preview_prompts=0",
    "optimizer.schedule=constant",
    "data.max_dropped_fraction=0.5",
]


class Runs:
    """Runs whose data and workdirs are in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data.jsonl"
        self.workdir = folder / "w"

    def train(self, *overrides, flags=()):
        """Returns the exit status of `ift train`."""
        arguments = runs.command(
            self.workdir, overrides=[*SETTINGS, *overrides], data=self.data, stores=self.folder
        )
        return main([*arguments[3:], *flags])

    def append_data(self):
        with open(self.data, "a", encoding="utf-8") as file:
            file.write(json.dumps({"inputs": "quixotic zebra", "targets": "JUMPS"}) + "\n")

    def files(self):
        """The content of every file in the workdir."""
        paths = sorted(path for path in self.workdir.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in paths}

    def record(self):
        return json.loads((self.workdir / "run.json").read_text())

    def weights(self, step):
        return Checkpoints(str(self.workdir), read_only=True)._manager.restore(step)["params"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a run of 6 steps, saved at 2, 4 and 6, on 60 examples."""
    folder = tmp_path_factory.mktemp("finished")
    made = Runs(folder)
    runs.write_data(made.data, n=60)
    assert made.train() == 0
    return folder


@pytest.fixture
def run(finished):
    """The run; what a test does to it is undone, and its paths stay the same."""
    kept = finished.with_name("kept")
    shutil.copytree(finished, kept)
    yield Runs(finished)
    shutil.rmtree(finished)
    kept.rename(finished)


def refused(run, capsys, *overrides, flags=(), prints=""):
    """The one line with which a run is refused; nothing in its workdir changes."""
    before = run.files()
    capsys.readouterr()
    assert run.train(*overrides, flags=flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert run.files() == before
    return line


def test_a_complete_run_called_again_does_nothing_and_says_so(run, capsys):
    before = run.files()
    assert run.train() == 0
    assert (
        f"nothing to do: the run in {run.workdir} is complete at step 6" in capsys.readouterr().out
    )
    assert run.files() == before


def test_a_dry_run_says_how_the_run_would_begin_and_writes_nothing(run, capsys):
    before = run.files()
    begins = {
        "train.steps=6": f"the run in {run.workdir} is complete at step 6",
        "train.steps=8": f"the run would resume at step 6 from {run.workdir}",
    }
    for override, line in begins.items():
        assert run.train(override, flags=["--dry-run"]) == 0
        assert line in capsys.readouterr().out.splitlines()
    assert run.files() == before
    run.workdir = run.folder / "new"
    assert run.train(flags=["--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"the run would begin in {run.workdir}" in printed.splitlines()
    sizes = r"([\d.]+) steps; this run: 6 steps, ([\d.]+) epochs"
    of_epoch, epochs = map(float, re.search(sizes, printed).groups())
    assert epochs == pytest.approx(6 / of_epoch, abs=0.02)
    assert not run.workdir.exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.learning_rate=0.5", "config.optimizer.learning_rate: 0.5, but the run in "),
        ("train.steps=3", "config.train.steps: 3, but the run in "),
        ("loss.z_loss=0.1", "config.loss.z_loss: 0.1, but the run in "),
    ],
)
def test_a_complete_run_with_other_settings_is_refused(run, capsys, override, message):
    line = refused(run, capsys, override)
    assert message in line and "was trained to step 6 with" in line and "nothing was done" in line


def test_another_optimizer_is_refused_by_its_field(run, capsys):
    line = refused(run, capsys, "train.steps=8", "optimizer.name=lion")
    assert "config.optimizer.name: the run in " in line and "has 'adamw', now it is 'lion'" in line


def test_appended_lines_are_refused_by_task_and_by_a_dry_run_too(run, capsys):
    run.append_data()
    for flags in ([], ["--dry-run"]):
        line = refused(run, capsys, "train.steps=8", flags=flags)
        assert "task 'jsonl_data' of the train mixture had 57 examples (fingerprint " in line
        assert "now 58 " in line and "): its source holds other data; use another --workdir" in line
        assert line.endswith("--allow-new-data to go on with other data")


def test_new_data_may_be_allowed_and_the_tokenizer_stays(run, capsys):
    tokenizer = (run.workdir / "tokenizer" / "tokenizer.model").read_bytes()
    run.append_data()
    assert run.train("train.steps=8", flags=["--allow-new-data"]) == 0
    output = capsys.readouterr().out
    assert "going on with other data: task 'jsonl_data' of the train mixture had 57" in output
    assert "resumed at step 6" in output
    assert (run.workdir / "tokenizer" / "tokenizer.model").read_bytes() == tokenizer
    assert (run.record()["inputs_since"], run.record()["finished_at"]) == (6, 8)
    assert run.train("train.steps=10") == 0  # It is the run's own data now.
    assert "other data" not in capsys.readouterr().out
    assert (run.record()["inputs_since"], run.record()["finished_at"]) == (6, 10)


def test_a_changed_tokenizer_is_never_allowed(run, capsys, tmp_path):
    other = Runs(tmp_path)
    runs.write_data(other.data, n=60)
    assert other.train("train.steps=1", "tokenizer.train_vocab_size=300") == 0
    path = f"tokenizer.path={other.workdir / 'tokenizer' / 'tokenizer.model'}"
    line = refused(run, capsys, "train.steps=8", path, flags=["--allow-new-data"])
    assert "the tokenizer has changed: 320 tokens (fingerprint " in line and "now 300 (" in line
    assert f"--config.tokenizer.path={run.workdir}/tokenizer" in line
    assert run.train("train.steps=7", f"tokenizer.path={run.workdir}/tokenizer") == 0


def test_data_that_only_moved_is_the_same(run):
    moved = Runs(run.folder)
    moved.data = run.data.with_name("moved") / "data.jsonl"
    moved.data.parent.mkdir()
    run.data.rename(moved.data)
    assert moved.train("train.steps=7") == 0


def test_epochs_instead_of_steps_are_refused_where_other_batches_follow(run, capsys):
    line = refused(run, capsys, "train.steps=0", "train.epochs=30.0")
    assert "the run had train.steps=6, now it has train.epochs=30: the last batch" in line
    shutil.rmtree(run.workdir / "checkpoints" / "6")  # Step 4 is in the first epoch.
    assert run.train("train.steps=0", "train.epochs=1.0") == 0
    assert "resumed at step 4" in capsys.readouterr().out


def test_weight_decay_may_be_switched_on_and_off(run, capsys):
    for decay in (0.1, 0.0):
        steps = 7 if decay else 8
        assert run.train(f"train.steps={steps}", f"optimizer.weight_decay={decay}") == 0
        assert f"resumed at step {steps - 1}" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_goes_on_and_knows_its_inputs_from_then_on(run, capsys):
    (run.workdir / "run.json").unlink()
    assert run.train("train.steps=7") == 0
    assert "does not say what data its run began with" in capsys.readouterr().out
    assert run.record()["inputs"]["tokenizer"]["tokens"] == 320


def test_checkpoints_without_a_config_are_nobodys(run, capsys):
    (run.workdir / "config.json").unlink()
    assert "has checkpoints but no config.json" in refused(run, capsys)


def test_a_damaged_checkpoint_is_put_aside_and_the_one_before_it_taken(run, capsys):
    expected = run.weights(6)
    damage_weights(run.workdir / "checkpoints" / "6")
    line = refused(run, capsys, "train.steps=7", "train.damaged_checkpoint=error")
    assert f"{run.workdir}/checkpoints/6: is damaged (" in line and "is step 4" in line
    assert run.train("train.steps=7", "train.save_every=1") == 0
    output = capsys.readouterr().out
    assert f"warning: {run.workdir}/checkpoints/6: is damaged (" in output
    assert (
        "warning: the run goes on from step 4; the damaged checkpoint of step 6 is now " in output
    )
    (aside,) = (run.workdir / "damaged").iterdir()
    assert aside.name.startswith("6-")
    jax.tree.map(np.testing.assert_array_equal, run.weights(6), expected)  # Trained again.


def test_if_every_checkpoint_is_damaged_the_run_is_refused(run, capsys):
    for step in (2, 4, 6):
        damage_weights(run.workdir / "checkpoints" / str(step))
    line = refused(run, capsys, "train.steps=7")
    assert "checkpoints/2: is damaged (" in line and "there is none before it" in line


@pytest.mark.parametrize("how", ["deleted", "emptied", "moved", "replaced"])
def test_a_workdir_that_goes_away_under_a_run_ends_it(run, capsys, monkeypatch, how):
    progress = Console.progress

    def take_away(console, record):
        progress(console, record)
        if how == "emptied":
            for path in Path(run.workdir).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif how == "deleted":
            shutil.rmtree(run.workdir)
        else:
            run.workdir.rename(run.folder / "away")
            if how == "replaced":
                shutil.copytree(run.folder / "away", run.workdir)

    monkeypatch.setattr(Console, "progress", take_away)
    assert run.train("train.steps=12", "train.save_every=100") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: --workdir {run.workdir}: was deleted, moved or replaced while the run was writing "
        "there; what it wrote is lost"
    )
    assert how == "replaced" or not (run.workdir / "config.json").exists()


def test_a_failed_write_of_a_workdir_that_is_being_deleted_is_named_by_it(run, capsys, monkeypatch):
    looks = []

    def save(*_, **__):
        raise ValueError("Checkpoint directory does not exist")  # As Orbax has it.

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:  # The deletion is done a while after the write failed.
            shutil.rmtree(run.workdir)

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr("ift_jax.io.paths.time", types.SimpleNamespace(sleep=sleep))
    assert run.train("train.steps=8") == 2
    assert len(looks) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --workdir {run.workdir}: was deleted, moved or replaced")


def test_a_metrics_file_that_was_deleted_under_a_run_ends_it(run, capsys, monkeypatch):
    progress = Console.progress

    def take_away(console, record):
        progress(console, record)
        (run.workdir / "metrics.jsonl").unlink()

    monkeypatch.setattr(Console, "progress", take_away)
    assert run.train("train.steps=12", "train.save_every=100") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {run.workdir}/metrics.jsonl: cannot be written: No such file or directory"
    )
