"""Temporary names belong to one process, and only provable leftovers are removed."""

import os
import subprocess
import sys

import pytest

from ift_jax.errors import WriteError
from ift_jax.evaluation.batch_prompts import continue_file
from ift_jax.io.files import append_json_lines, write_atomically
from ift_jax.io.folders import new_folder, write_files
from ift_jax.io.locks import run_lock
from ift_jax.io.side_folder import write_side_file
from ift_jax.io.temporary import (
    remove_leftovers,
    remove_leftovers_of,
    temporary_file,
    temporary_folder,
)
from tests.io.full_disk import files_of_at_most


def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_two_at_once_have_names_of_their_own_and_nothing_is_left(tmp_path):
    target = tmp_path / "mine"
    with temporary_folder(target) as one, temporary_folder(target) as two:
        assert one != two and one.parent == two.parent == tmp_path
        for path in (one, two):
            assert os.uname().nodename in path.name and f"-{os.getpid()}-" in path.name
    with pytest.raises(KeyError), temporary_file(target):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def leave(folder, target):
    """Leaves a temporary file of a killed process beside a target."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{target}.{os.uname().nodename}-{dead_process()}-0123456789ab.tmp"
    path.write_text("half of")
    return path


def test_what_a_killed_run_left_in_its_workdir_is_removed_by_the_next(tmp_path):
    left = [leave(tmp_path, "run.json"), leave(tmp_path / "tokenizer", "tokenizer.model")]
    with run_lock(str(tmp_path)):
        assert not any(path.exists() for path in left)


def test_what_a_killed_write_left_beside_stores_is_removed_by_the_next(tmp_path):
    left = [leave(tmp_path / "requests", "eval.json"), leave(tmp_path, "probe")]
    write_side_file(tmp_path, "requests/train.json", b"{}")
    assert not any(path.exists() for path in left)
    assert os.listdir(tmp_path / "requests") == ["train.json"]


def test_what_a_killed_generate_left_of_its_settings_is_removed_by_the_next(tmp_path):
    left = leave(tmp_path, "answers.jsonl.settings.json")
    assert continue_file(str(tmp_path / "answers.jsonl"), {"seed": 1}, []) == 0
    assert not left.exists()


def test_a_name_of_any_length_can_be_written(tmp_path):
    for name in ("a" * 255, "é" * 127):
        write_atomically(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"


def test_others_files_of_any_name_are_left_alone(tmp_path):
    """The names of earlier versions, of other programs, of other hosts, of living processes."""
    host, dead, living = os.uname().nodename, dead_process(), os.getppid()
    foreign = [
        "mine.partial",
        "config.json.new",
        f".mine.{host}.{dead}.tmp",
        f".mine.elsewhere-{dead}-0123456789ab.tmp",
        f".mine.{host}-{living}-0123456789ab.tmp",
        f".mine.{host}-{dead}-0123456789ab.tmp.kept",
        f".mine.{host}-{dead}-0123456789.tmp",
        f".yours.{host}-{dead}-0123456789ab.tmp",
    ]
    for name in foreign:
        (tmp_path / name).write_text("others'")
    ours = tmp_path / f".mine.{host}-{dead}-0123456789ab.tmp"
    of_an_earlier_process = tmp_path / f".mine.{host}-{os.getpid()}-0123456789ab.tmp"
    ours.mkdir()
    (ours / "weights").write_text("1")
    of_an_earlier_process.write_text("1")
    with temporary_file(tmp_path / "mine") as in_use:
        remove_leftovers_of(tmp_path / "mine")
        assert in_use.exists()
    assert sorted(os.listdir(tmp_path)) == sorted(foreign)
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(foreign[:-1])


def test_a_new_folder_and_its_files_take_over_nothing(tmp_path):
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "thesis").write_text("years of work")
    with new_folder(str(tmp_path / "mine"), "--output") as folder:
        write_files(folder, {"config.json": {"a": 1}, "deep/x": b"2"})
        assert not (tmp_path / "mine").exists()
    assert (tmp_path / "mine.partial" / "thesis").read_text() == "years of work"
    assert (tmp_path / "mine" / "deep" / "x").read_bytes() == b"2"
    assert sorted(os.listdir(tmp_path)) == ["mine", "mine.partial"]
    live = tmp_path / "mine"
    (live / "config.json.new").write_text("others'")
    write_files(str(live), {"config.json": {"a": 2}})
    assert sorted(os.listdir(live)) == ["config.json", "config.json.new", "deep"]
    assert (live / "config.json.new").read_text() == "others'"


def test_a_write_that_fails_is_named_and_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "scores.json"
    path.write_bytes(b"old")
    lines = str(tmp_path / "answers.jsonl")
    with files_of_at_most(1000):
        for name, write in (
            (path, lambda: write_atomically(path, b"x" * 5000)),
            (lines, lambda: append_json_lines(lines, ["x" * 5000])),
        ):
            with pytest.raises(WriteError) as caught:
                write()
            assert str(caught.value) == f"{name}: cannot be written: File too large"
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["answers.jsonl", "scores.json"]


def test_a_write_error_in_a_new_folder_names_the_folder_of_the_user(tmp_path):
    path = str(tmp_path / "mine")
    with pytest.raises(WriteError) as caught, new_folder(path, "--output") as folder:
        raise WriteError(f"{folder}/model.safetensors: cannot be written: No space left on device")
    assert (
        str(caught.value) == f"{path}/model.safetensors: cannot be written: No space left on device"
    )
    assert os.listdir(tmp_path) == []
