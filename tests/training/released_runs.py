"""Runs that begin from a random Hugging Face folder: one whole, and one that is resumed halfway."""

import json

import jax
import numpy as np

from ift_jax.commands.main import main
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training import train_program
from tests.interop.folders import write_folder
from tests.training.in_process import final_state, records


def train_whole_and_resumed(name, tmp_path, monkeypatch, *, n_devices, fields):
    """Train four steps twice, and compare the states to the bit.

    Args:
        name: The model, as `write_folder` knows it.
        tmp_path: Gets the folders "released", "whole", and "resumed".
        monkeypatch: Limits the runs to the first devices.
        n_devices: How many; each more takes longer to compile for.
        fields: What is set in the runs' config beside what all have.

    Returns:
        The lines of metrics with a loss of each run.
    """
    devices = jax.devices()[:n_devices]
    monkeypatch.setattr(train_program, "make_mesh", lambda sizes, _=None: make_mesh(sizes, devices))
    folder = write_folder(tmp_path / "released", name)
    rows = [{"inputs": f"w{i} w{i + 1}", "targets": f"w{i % 40 + 9}"} for i in range(9, 49)]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = [
        *fields,
        "optimizer.schedule=constant",
        "optimizer.learning_rate=0.003",
        "train.epochs=0",
        "train.save_every=2",
        "train.keep_best=0",
        "train.log_every=1",
        "train.eval_every=0",
        "train.preview_prompts=0",
        "train.report=False",
        "train.peak_tflops=1.0",
        f"train.compile_cache={tmp_path / 'compiled'}",
        "evaluation.examples=0",
    ]

    def train(workdir, steps, *source):
        settings = [f"--config.{field}" for field in (*fields, f"train.steps={steps}")]
        assert main(["train", "--workdir", str(tmp_path / workdir), *source, *settings]) == 0

    source = ["--model", str(folder), "--data", str(data)]
    train("whole", 4, *source)
    train("resumed", 2, *source)
    train("resumed", 4)
    (step, leaves), (_, others) = (final_state(tmp_path / run) for run in ("whole", "resumed"))
    assert step == 4 and len(leaves) == len(others) > 20
    for a, b in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(a, b)
    whole, resumed = (
        [line for line in records(tmp_path / run) if "loss" in line] for run in ("whole", "resumed")
    )
    assert whole == resumed and whole[-1]["loss"] < whole[0]["loss"]
    return whole
