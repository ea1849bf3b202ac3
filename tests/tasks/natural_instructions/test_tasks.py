"""Registering Natural Instructions from a generated folder and from real files."""

import dataclasses
import json
import logging
import os
from collections import Counter

import pytest
import seqio

from ift_jax.config.schema import (
    Config,
    DataConfig,
    EncoderDecoderConfig,
    FormatConfig,
    TokenizerConfig,
)
from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_file
from ift_jax.preparation.prepare import prepare
from tasks.natural_instructions import tasks as natural_instructions
from tasks.natural_instructions.source import load_task
from tests.shared_data import SHARED, requires_shared

pytestmark = pytest.mark.usefixtures("own_registry")


def _folder(tmp_path, train, test, on_disk):
    splits = tmp_path / "splits" / "default"
    splits.mkdir(parents=True)
    (splits / "train_tasks.txt").write_text("\n".join(train) + "\n")
    (splits / "test_tasks.txt").write_text("\n".join(test) + "\n\n")
    for folder, name in on_disk:
        (tmp_path / folder).mkdir(exist_ok=True)
        instances = [{"input": f"{name} {i}", "output": ["x", "y"]} for i in range(30)]
        task = {"Definition": ["Do."], "Positive Examples": [], "Instances": instances}
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(task))
    return str(tmp_path)


def test_the_lists_decide_and_what_is_missing_is_reported(tmp_path, caplog):
    root = _folder(
        tmp_path,
        ["task1_a-b", "task2_c", "task3_gone"],
        ["task4_d", "task5_gone"],
        [("tasks", "task1_a-b"), ("more", "task2_c"), ("tasks", "task4_d"), ("tasks", "task6_e")],
    )
    with caplog.at_level(logging.WARNING):
        found = natural_instructions.register(root)
    assert found.train == ("natural_instructions_task1_a_b", "natural_instructions_task2_c")
    assert found.heldout == ("natural_instructions_task4_d",)
    assert found.missing == ("task3_gone", "task5_gone")
    assert "2 of 5 listed tasks are not in" in caplog.text

    train = seqio.MixtureRegistry.get("natural_instructions_train")
    heldout = seqio.MixtureRegistry.get("natural_instructions_heldout")
    assert {task.name for task in train.tasks} == set(found.train)
    assert {task.name for task in heldout.tasks} == set(found.heldout)
    assert [train.get_rate(task) for task in train.tasks] == [27, 27]
    assert heldout.splits == ("test",)
    for mixture, split, count in (
        (train, "train", 27),
        (train, "validation", 3),
        (heldout, "test", 30),
    ):
        for task in mixture.tasks:
            dataset = task.get_dataset(None, split=split, shuffle=False)
            assert len(list(dataset.as_numpy_iterator())) == count
    mixed = train.get_dataset(None, split="train", shuffle=False, num_epochs=1)
    assert set(next(mixed.as_numpy_iterator())) == {"inputs", "targets"}
    assert natural_instructions.register(root) == found  # Registering it again is no error.


def test_a_task_cannot_be_trained_on_and_held_out(tmp_path):
    root = _folder(tmp_path, ["task1", "task2"], ["task2"], [("tasks", "task1")])
    with pytest.raises(UserError, match="task2 is in train_tasks.txt and in test_tasks.txt"):
        natural_instructions.register(root)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="data.root is empty"):
        natural_instructions.register("")
    with pytest.raises(UserError, match="no: not a folder"):
        natural_instructions.register(str(tmp_path / "no"))
    with pytest.raises(UserError, match=r"no folder with task\*.json"):
        natural_instructions.register(str(tmp_path))
    root = _folder(tmp_path, ["task1"], ["task2"], [("tasks", "task1")])
    with pytest.raises(UserError, match=r"none of the 1 tasks of splits/default/test_tasks.txt"):
        natural_instructions.register(root)
    (tmp_path / "splits/default/test_tasks.txt").unlink()
    with pytest.raises(UserError, match=r"test_tasks.txt: does not exist"):
        natural_instructions.register(root)


def test_a_task_in_two_folders_is_ambiguous(tmp_path):
    root = _folder(tmp_path, ["task1"], ["task2"], [("a", "task1"), ("b", "task1")])
    with pytest.raises(UserError, match="task task1 is there twice"):
        natural_instructions.register(root)


@requires_shared
def test_real_files():
    root = SHARED / "data" / "natural_instructions"
    found = natural_instructions.register(str(root))
    assert (len(found.train), len(found.heldout), found.missing) == (40, 8, ())
    names = {path.stem: path for path in root.glob("tasks*/task*.json")}
    for name, path in names.items():
        task = load_task(str(path))
        raw = json.loads(path.read_text())
        assert len(task.instances) == len(raw["Instances"])
        registered = f"natural_instructions_{name.replace('-', '_')}"
        if registered not in found.heldout:
            continue
        source = seqio.TaskRegistry.get(registered).source
        for record, instance in zip(source.records("test"), raw["Instances"], strict=False):
            assert instance["input"].strip() in record["inputs"]
            assert set(json.loads(record["references"])) == set(instance["output"])
            assert record["targets"] in instance["output"]


def test_preparing_parses_a_task_file_once_to_count_and_once_for_each_split(tmp_path, monkeypatch):
    parsed = []

    def recorded(path):
        parsed.append(os.path.basename(path))
        return read_json_file(path)

    monkeypatch.setattr("tasks.natural_instructions.files.read_json_file", recorded)
    names = [f"task{i}_a" for i in range(7)]  # More than are kept parsed.
    root = _folder(tmp_path, names[:6], names[6:], [("tasks", name) for name in names])
    config = Config(
        tokenizer=TokenizerConfig(train_vocab_size=300),
        data=DataConfig(
            root=root,
            modules=("tasks.natural_instructions.tasks",),
            mixture="natural_instructions_train",
            store_dir=str(tmp_path / "stores"),
            max_dropped_fraction=1.0,
        ),
        format=FormatConfig(template="plain"),
        model=EncoderDecoderConfig(),
    )
    train = prepare(config, "train", log=lambda _: None)
    trains_tokenizer = 1
    assert max(Counter(parsed).values()) <= 2 + trains_tokenizer
    prepare(
        dataclasses.replace(config, tokenizer=TokenizerConfig(train.tokenizer_path)),
        "eval",
        log=lambda _: None,
    )
    assert max(Counter(parsed).values()) <= 3 + trains_tokenizer
