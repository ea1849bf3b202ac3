"""Every command checks what it is to write before any work, takes over nothing, and works alone."""

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ift_jax.checkpoint.open_model import WorkdirSource
from ift_jax.checkpoint.released_source import HuggingFaceSource
from ift_jax.commands import plan
from ift_jax.commands.main import main
from ift_jax.io.outputs import file_output, new_output
from ift_jax.models import build_model
from ift_jax.planning import compile_step
from tests import small_models
from tests.io.full_disk import files_of_at_most
from tests.io.read_only import read_only


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_models.write_workdir(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def refused(capsys, monkeypatch):
    """Runs a command that must end in one line, before a model is read or anything compiled."""

    def too_late(*_, **__):
        raise AssertionError("this is work")

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WorkdirSource, "__init__", too_late)
            patch.setattr(HuggingFaceSource, "__init__", too_late)
            patch.setattr(compile_step, "program_of", too_late)
            patch.setattr(plan, "set_environment", lambda: None)
            assert main([*map(str, arguments)]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line.removeprefix("error: ")

    return run


def commands(workdir, path):
    """A command line for each flag that names something to write, and the flag."""
    config = ["--config", "configs/quickstart.py"]
    yield "--output", ["generate", "--workdir", workdir, "--prompt", "x", "--output", path]
    yield "--output", ["eval", *config, "--workdir", workdir, "--output", path]
    yield "--json", ["plan", *config, "--topology", "v5e:2x2", "--json", path]
    yield "--output", ["export", "--workdir", workdir, "--output", path]
    yield "--workdir", ["import", "none", "--workdir", path]


def test_what_cannot_be_written_is_refused_before_any_work(workdir, tmp_path, refused):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for flag, command in commands(workdir, tmp_path / "file" / "x"):
        assert refused(*command) == (
            f"{flag} {tmp_path}/file/x: {tmp_path}/file is a file; expected a folder"
        )
    for flag, command in commands(workdir, tmp_path / "full"):
        makes_folder = command[0] in ("export", "import")
        why = "is not empty; name a new folder" if makes_folder else "is a folder; expected a file"
        assert refused(*command).startswith(f"{flag} {tmp_path}/full: {why}")
    assert sorted(os.listdir(tmp_path)) == ["file", "full"]


def test_the_second_of_two_at_once_is_refused_by_name(workdir, tmp_path, refused):
    path = str(tmp_path / "x")
    for flag, command in commands(workdir, path):
        reserve = new_output if command[0] in ("export", "import") else file_output
        with reserve(path, flag):
            assert refused(*command) == f"{flag} {path}: another process is writing it"
    assert os.listdir(tmp_path) == []


def test_generate_appends_only_to_what_it_began(workdir, tmp_path, refused, capsys, monkeypatch):
    small_models.compile_one_program(monkeypatch)
    path = tmp_path / "deep" / "answers.jsonl"
    command = ["generate", "--workdir", workdir, "--prompt", "x", "--max-new-tokens", "2"]
    assert main([*command, "--output", str(path)]) == 0
    capsys.readouterr()
    settings = path.with_name("answers.jsonl.settings.json")
    assert sorted(os.listdir(path.parent)) == [path.name, settings.name]
    assert refused(*command, "--output", "/dev/full") == (
        "--output /dev/full: is no regular file; expected one to append to"
    )
    settings.unlink()
    assert refused(*command, "--output", path).startswith(f"{path}: exists, and there is no")
    path.unlink()
    settings.write_text(json.dumps({"window": "dark"}))  # Another program's file.
    assert main([*command, "--output", str(path)]) == 2
    assert f"{settings}: holds no settings of ours" in capsys.readouterr().err
    assert json.loads(settings.read_text()) == {"window": "dark"} and not path.exists()


def test_export_and_import_leave_the_files_of_others(workdir, tmp_path):
    mine, source = tmp_path / "mine", tmp_path / "model.partial"
    partial = tmp_path / "mine.partial"
    partial.mkdir()
    (partial / "thesis").write_text("years of work")
    assert main(["export", "--workdir", workdir, "--output", str(mine)]) == 0
    assert (partial / "thesis").read_text() == "years of work"
    exported = {path.name: path.read_bytes() for path in mine.iterdir()}
    mine.rename(source)
    assert main(["import", str(source), "--workdir", str(tmp_path / "model")]) == 0
    assert {path.name: path.read_bytes() for path in source.iterdir()} == exported
    assert sorted(os.listdir(tmp_path)) == ["mine.partial", "model", "model.partial"]
    again = tmp_path / "again"
    assert main(["export", "--workdir", str(tmp_path / "model"), "--output", str(again)]) == 0
    assert (again / "model.safetensors").read_bytes() == exported["model.safetensors"]


def test_a_full_disk_is_one_line_and_nothing_is_left(tmp_path, capsys, monkeypatch):
    # Each of its arrays is larger than the limit, however it is cut over devices.
    model = dataclasses.replace(small_models.CONFIG.model, d_ff=4096)
    config = dataclasses.replace(small_models.CONFIG, model=model)
    params = small_models.random_params(build_model(model))
    workdir = small_models.write_workdir(tmp_path / "run", config, params)
    released = tmp_path / "released"
    assert main(["export", "--workdir", workdir, "--output", str(released)]) == 0
    capsys.readouterr()
    for command, expected in (
        (
            ["export", "--workdir", workdir, "--output", f"{tmp_path}/new"],
            f"{tmp_path}/new/model.safetensors: cannot be written: File too large",
        ),
        (
            ["import", str(released), "--workdir", f"{tmp_path}/new"],
            f"{tmp_path}/new/checkpoints/0: the checkpoint cannot be written: File too large; "
            "there is none before it",
        ),
    ):
        with files_of_at_most(20_000):
            assert main(command) == 2
        assert capsys.readouterr().err.splitlines() == [f"error: {expected}"]
        assert sorted(os.listdir(tmp_path)) == ["released", "run"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert main(["export", "--workdir", workdir, "--output", f"{tmp_path}/new"]) == 2
    assert f"--output {tmp_path}/new: takes 0.8 MB, and its disk has" in capsys.readouterr().err


def test_a_folder_that_may_only_be_read_is_one_line(workdir, tmp_path, capsys):
    (tmp_path / "read").mkdir()
    with read_only(tmp_path / "read"):
        for path, command in (
            ("read/new", ["export", "--workdir", workdir, "--output"]),
            ("read/new", ["generate", "--workdir", workdir, "--prompt", "x", "--output"]),
        ):
            assert main([*command, str(tmp_path / path)]) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {tmp_path}/read/")
            assert line.endswith(": cannot be written: Read-only file system")


def test_a_full_standard_output_is_one_line():
    command = [sys.executable, "-m", "ift_jax.commands.main", "train", "--help-config"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == ("error: standard output cannot be written: No space left on device\n")
