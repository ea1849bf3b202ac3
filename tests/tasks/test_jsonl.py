"""A user's own JSON lines, in a file or a folder."""

import json

import pytest
import seqio

from ift_jax.errors import UserError
from tasks import jsonl

pytestmark = pytest.mark.usefixtures("own_registry")


def _write(path, record, n):
    path.write_text("".join(json.dumps(record) + "\n" for _ in range(n)))


TEXT = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def _read(split):
    return [
        example
        for task in seqio.MixtureRegistry.get("jsonl").tasks
        if split in task.splits
        for example in task.get_dataset(None, split=split, shuffle=False).as_numpy_iterator()
    ]


def test_a_folder_gives_a_task_a_file_in_proportion_to_their_sizes(tmp_path):
    _write(tmp_path / "a-1.jsonl", TEXT, 40)
    _write(tmp_path / "a-1.validation.jsonl", TEXT, 3)
    _write(tmp_path / "b.jsonl", TEXT, 10)
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".#b.jsonl").symlink_to("editor@host.1")  # An editor's lock.
    assert jsonl.register(str(tmp_path)) == ("jsonl_a_1", "jsonl_b")
    mixture = seqio.MixtureRegistry.get("jsonl")
    assert [mixture.get_rate(task) for task in mixture.tasks] == [40, 10]
    assert [task.splits for task in mixture.tasks] == [("train", "validation"), ("train",)]
    assert len(_read("validation")) == 3
    assert _read("train") == [{"inputs": b"a", "targets": b"b"}] * 50


def test_one_file(tmp_path):
    path = tmp_path / "chat.validation.jsonl"
    _write(path, CHAT, 30)
    assert jsonl.register(str(path)) == ("jsonl_chat.validation",)
    assert len(_read("train")) + len(_read("validation")) == 30
    assert json.loads(_read("train")[0]["messages"]) == CHAT["messages"]


def test_one_file_takes_the_validation_file_beside_it(tmp_path):
    _write(tmp_path / "a.jsonl", TEXT, 40)
    _write(tmp_path / "a.validation.jsonl", TEXT, 3)
    assert jsonl.register(str(tmp_path / "a.jsonl")) == ("jsonl_a",)
    assert (len(_read("train")), len(_read("validation"))) == (40, 3)


def test_chat_and_text_files_mix_as_chat(tmp_path):
    _write(tmp_path / "a.jsonl", TEXT, 5)
    _write(tmp_path / "b.jsonl", CHAT, 5)
    jsonl.register(str(tmp_path))
    examples = _read("train")
    assert len(examples) == 10
    assert {json.dumps(json.loads(e["messages"])) for e in examples} == {
        json.dumps(CHAT["messages"])
    }


def test_what_cannot_be_read(tmp_path):
    for root, message in (
        ("", "data.root is empty"),
        (str(tmp_path), "holds no file"),
    ):
        with pytest.raises(UserError, match=message):
            jsonl.register(root)
    with pytest.raises(UserError, match="nothing: does not exist"):
        jsonl.register(str(tmp_path / "nothing"))
    _write(tmp_path / "a.validation.jsonl", TEXT, 5)
    _write(tmp_path / "b.jsonl", TEXT, 5)
    with pytest.raises(UserError, match="there is no a to train on beside it"):
        jsonl.register(str(tmp_path))
