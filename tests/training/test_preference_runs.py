"""Whole runs on pairs: the reference is computed once, and resuming changes nothing.

The run has adapters, gradient accumulation and packed rows, so its reference is the model below the
adapters.
"""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from ift_jax.commands.main import main
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.data.subset import with_examples
from ift_jax.errors import UserError
from ift_jax.training.reference_files import read_log_probs, write_log_probs
from tests.data.made_stores import example, make_store
from tests.training import in_process, runs

SETTINGS = [
    "preference.loss=sigmoid",
    "lora.rank=2",
    "optimizer.learning_rate=0.05",
    "model.dropout=0.0",
    "train.batch_size=8",
    "data.max_length=96",
    "data.max_dropped_fraction=0.5",
    "train.steps=4",
    "train.log_every=1",
    "train.save_every=2",
    "train.eval_every=4",
    "train.keep_best=0",
    "train.max_to_keep=3",
    "train.preview_prompts=0",
]


def write_pairs(path, n=60):
    """Pairs whose chosen answer is the first word and whose rejected one is the last."""
    with open(path, "w", encoding="utf-8") as file:
        for i in range(n):
            words = [runs.WORDS[(i * k + k) % len(runs.WORDS)] for k in range(2, 4 + i % 3)]
            prompt = {"role": "user", "content": "say the first: " + " ".join(words)}
            sides = {
                name: [prompt, {"role": "assistant", "content": word}]
                for name, word in (("chosen", words[0]), ("rejected", words[-1]))
            }
            file.write(json.dumps({**sides, "score_chosen": 7.5}) + "\n")
    return path


class Runs:
    """Runs whose data, stores and workdirs are in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.data = write_pairs(folder / "pairs.jsonl")

    def train(self, name, *overrides):
        """Returns the exit status of `ift train`."""
        arguments = runs.command(
            self.folder / name,
            overrides=[*SETTINGS, *overrides],
            data=self.data,
            stores=self.folder,
        )
        return main(arguments[3:])

    def resume_from_step_2(self, name, *overrides):
        """Resumes a copy of the finished run, without its last checkpoint."""
        shutil.copytree(self.folder / "whole", self.folder / name)
        shutil.rmtree(self.folder / name / "checkpoints" / "4")
        return self.train(name, *overrides)

    def assert_as_whole(self, name):
        """A run left the lines and the arrays of the uninterrupted one."""
        folders = self.folder / name, self.folder / "whole"
        ours, theirs = map(in_process.records, folders)
        assert ours == theirs
        (step, leaves), (expected_step, expected) = map(in_process.final_state, folders)
        assert step == expected_step
        for got, wanted in zip(leaves, expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.fixture(scope="module")
def whole(one_device, tmp_path_factory):
    """A finished run, and what it printed."""
    made = Runs(tmp_path_factory.mktemp("pairs"))
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert made.train("whole") == 0
    return made, shown.getvalue()


def test_a_run_begins_at_its_reference_and_learns_what_is_preferred(whole):
    made, shown = whole
    records = in_process.records(made.folder / "whole")
    steps = [record for record in records if "loss" in record]
    held_out = [record for record in records if "eval_preference" in record]
    # Adapters begin at zero, so the first step is at the reference: no margin, the loss of a coin.
    assert abs(steps[0]["preference"]["margin"]) < 1e-4
    np.testing.assert_allclose(steps[0]["loss"], np.log(2), rtol=1e-4)
    np.testing.assert_allclose(held_out[0]["eval_loss"], np.log(2), rtol=1e-4)
    assert steps[-1]["preference"]["margin"] > 0.01
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert set(held_out[-1]["eval_preference"]) >= {"accuracy", "margin", "chosen_log_prob"}
    assert "1 field of its rows unused: score_chosen (" in shown
    assert "rows are pairs of a chosen and a rejected answer" in shown
    assert "reference: computing the log-probabilities of" in shown
    assert " · accuracy " in shown and " margin " in shown
    assert "held-out pairs won by the chosen answer:" in shown


def test_a_resumed_run_ends_bit_for_bit_as_the_whole_one_and_computes_nothing_twice(whole, capsys):
    made, _ = whole
    assert made.resume_from_step_2("resumed") == 0
    shown = capsys.readouterr().out
    assert "resumed at step 2" in shown and "reference:" not in shown
    made.assert_as_whole("resumed")


def test_numbers_that_are_gone_are_computed_again_from_the_same_model_only(whole, capsys):
    made, _ = whole
    kept = made.folder / "stores" / "reference_log_probs"
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    shutil.rmtree(kept)
    assert made.resume_from_step_2("again") == 0
    assert "reference: computing" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    made.assert_as_whole("again")

    shutil.rmtree(kept)
    shutil.copytree(made.folder / "whole", made.folder / "other")
    note = made.folder / "other" / "reference.json"
    note.write_text(json.dumps({"fingerprint": "0" * 16, "init_from": ""}))
    shutil.rmtree(made.folder / "other" / "checkpoints" / "4")
    assert made.train("other") != 0
    shown = capsys.readouterr()
    assert "is another model (fingerprint " in shown.err and "began with (000000" in shown.err
    assert not kept.exists()


def test_another_loss_is_another_run(whole, capsys):
    made, _ = whole
    assert made.train("whole", "preference.loss=ipo") != 0
    assert "config.preference.loss: the run in" in capsys.readouterr().err


def test_pairs_and_answers_are_not_taken_for_each_other(whole, tmp_path, capsys):
    made, _ = whole
    assert made.train("answers", "preference.loss=none") != 0
    error = capsys.readouterr().err
    assert "are pairs of a chosen and a rejected answer; set preference.loss" in error
    made = Runs(tmp_path)
    runs.write_data(made.data, n=30)
    assert made.train("w") != 0
    error = capsys.readouterr().err
    assert "pairs.jsonl:1: field 'chosen' is missing" in error


def test_runs_on_parts_of_the_pairs_share_their_numbers_with_the_whole(whole, capsys):
    made, _ = whole
    for n in (12, 20):
        part = (f"data.max_examples_per_task={n}", "train.steps=1", "train.eval_every=0")
        assert made.train(f"part{n}", *part) == 0, capsys.readouterr().err
        shown = capsys.readouterr().out
        assert f"{n} examples" in shown
    assert "log-probabilities of 20 pairs" not in shown  # Twelve are those of the smaller part.


def test_a_part_of_a_store_reads_and_completes_the_file_of_the_whole(tmp_path):
    store = make_store(tmp_path, "a-train-1", [[example(5), example(7), example(9), example(4)]])
    part = with_examples(Mixture(["a"], np.ones(1), [store], [[]]), 2, seed=0).stores[0]
    write_log_probs(store, "f" * 16, np.arange(8.0).reshape(4, 2))
    np.testing.assert_array_equal(
        read_log_probs(part, "f" * 16), np.arange(8.0).reshape(4, 2)[part.places]
    )
    write_log_probs(part, "f" * 16, -np.ones((2, 2)))
    expected = np.arange(8.0).reshape(4, 2)
    expected[part.places] = -1
    np.testing.assert_array_equal(read_log_probs(store, "f" * 16), expected)


def test_files_of_another_model_or_store_are_refused_by_name(tmp_path):
    stores = [make_store(tmp_path, name, [[example(5), example(7 + i)]]) for i, name in
              enumerate(("a-train-1", "b-train-1"))]  # fmt: skip
    values = np.array([[-1.5, np.nan], [-2.5, -3.0]], np.float32)
    assert np.isnan(read_log_probs(stores[0], "f" * 16)).all()
    write_log_probs(stores[0], "f" * 16, values)
    np.testing.assert_array_equal(read_log_probs(stores[0], "f" * 16), values)
    assert np.isnan(read_log_probs(stores[0], "e" * 16)).all()

    folder = tmp_path / "reference_log_probs"
    path = folder / f"a-train-1-{'f' * 16}"
    for name, what in ((f"a-train-1-{'e' * 16}", "reference model"),
                       (f"b-train-1-{'f' * 16}", "token store")):  # fmt: skip
        shutil.copy(path, folder / name)
        store = TokenStore.open(tmp_path / name[:9])
        with pytest.raises(UserError, match=f"{name}: holds log-probabilities of another {what} "):
            read_log_probs(store, name[10:])
    path.write_bytes(path.read_bytes()[:-3])  # Cut off, it counts as none.
    assert np.isnan(read_log_probs(stores[0], "f" * 16)).all()
