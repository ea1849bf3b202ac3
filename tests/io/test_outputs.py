"""What a command writes is checked before any work, and written by one process at a time."""

import errno
import os

import pytest

from ift_jax.errors import UserError, WriteError
from ift_jax.io import locks
from ift_jax.io.folders import new_folder
from ift_jax.io.outputs import check_file, check_folder, file_output, new_output, write_output


def refused(check, *arguments, **options):
    with pytest.raises(UserError) as caught:
        check(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_paths_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    file, full, none = (str(tmp_path / name) for name in ("file", "full", "none"))

    def make(path):
        with new_output(path, "--output"):
            raise AssertionError("must not be reached")

    for check in (lambda path: check_folder(path, "--workdir"), make):
        flag = "--output" if check is make else "--workdir"
        assert refused(check, file) == f"{flag} {file}: is a file; expected a folder"
        assert refused(check, f"{file}/a/b") == (
            f"{flag} {file}/a/b: {file} is a file; expected a folder"
        )
    assert refused(make, full) == f"--output {full}: is not empty; name a new folder"
    assert refused(make, "/proc").startswith("--output /proc: something is mounted here")
    assert (
        refused(check_file, full, "--json")
        == f"--json {full}: is a folder; expected a file to write"
    )
    assert refused(check_file, f"{file}/x", "--json") == (
        f"--json {file}/x: {file} is a file; expected a folder"
    )
    full_disk = refused(check_file, "/dev/full", "--output", appends=True)
    assert full_disk == "--output /dev/full: is no regular file; expected one to append to"
    for good in (none, f"{none}/a/b", f"{full}/y"):
        check_folder(good, "--workdir")
        check_file(good, "--output")
    check_folder(full, "--workdir")
    check_file(f"{full}/x", "--output", appends=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]  # The checks create nothing.


def test_a_folder_that_may_only_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    folder = str(tmp_path)
    assert refused(check_folder, folder, "--workdir") == (
        f"--workdir {folder}: the folder may not be written"
    )
    for check in (check_folder, check_file):
        assert refused(check, f"{folder}/a/b", "--output") == (
            f"--output {folder}/a/b: the folder {folder} may not be written"
        )


def test_an_output_file_is_written_as_a_whole_and_a_device_is_never_replaced(tmp_path):
    path = tmp_path / "deep" / "scores.json"
    with file_output(str(path), "--output"):
        write_output(str(path), b"1")
    link = tmp_path / "link"
    link.symlink_to(path)
    write_output(str(link), b"2")
    assert link.is_symlink() and path.read_bytes() == b"2"
    with file_output("/dev/full", "--output"), pytest.raises(WriteError) as caught:
        write_output("/dev/full", b"3")
    assert str(caught.value) == "/dev/full: cannot be written: No space left on device"
    assert not os.path.isfile("/dev/full")
    assert sorted(os.listdir(tmp_path)) == ["deep", "link"]
    assert os.listdir(tmp_path / "deep") == ["scores.json"]


@pytest.mark.parametrize("reserve", [new_output, file_output])
def test_the_second_of_two_at_once_is_refused_by_name(tmp_path, reserve):
    path = str(tmp_path / "answers")
    for _ in range(2):  # The lock is free again at the end.
        with reserve(path, "--output"):
            assert refused(lambda: reserve(path, "--output").__enter__()) == (
                f"--output {path}: another process is writing it"
            )
            with reserve(path + "2", "--output"):
                pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_appears_during_the_work_is_not_overwritten(tmp_path):
    path = tmp_path / "mine"
    with (
        pytest.raises(UserError, match="is not empty"),
        new_folder(str(path), "--output") as folder,
    ):
        (path / "others").mkdir(parents=True)
        assert folder != str(path)
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(path) == ["others"]


def test_a_lock_leaves_the_files_of_others(tmp_path):
    (tmp_path / ".answers.lock").write_text("others'")
    with file_output(str(tmp_path / "answers"), "--output"):
        pass
    assert (tmp_path / ".answers.lock").read_text() == "others'"


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with file_output(str(tmp_path / "answers"), "--output"):
        pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/.answers.lock: the file system has no locks (")
