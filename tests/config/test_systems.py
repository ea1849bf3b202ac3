"""Finding the modules of a recipe's tasks: the folder that holds tasks/, and the table SYSTEMS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ift_jax.config.systems import add_tasks_folder, modules_of, systems_table
from ift_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


def test_the_nearest_folder_above_the_config_file_that_holds_tasks_comes_first(
    own_path, tmp_path, monkeypatch
):
    project = tmp_path / "project"
    (project / "tasks").mkdir(parents=True)
    (project / "configs" / "deep").mkdir(parents=True)
    (tmp_path / "tasks").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    add_tasks_folder(str(project / "configs" / "deep" / "run.py"))
    assert sys.path[0] == str(project)
    add_tasks_folder(os.path.relpath(project / "configs" / "run.py"))
    assert sys.path[:2].count(str(project)) == 1


def test_a_package_that_has_tasks_of_its_own_is_passed_over(own_path, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tests" / "tasks").mkdir(parents=True)
    (tmp_path / "tests" / "__init__.py").write_text("")
    add_tasks_folder(str(tmp_path / "tests" / "run.py"))
    assert sys.path[0] == str(tmp_path)


def test_without_such_a_folder_the_working_folder_comes_first(own_path, tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "tasks.py").write_text("")  # A file is no folder of tasks.
    monkeypatch.chdir(tmp_path / "configs")
    add_tasks_folder(str(tmp_path / "configs" / "run.py"))
    assert sys.path[0] == str(tmp_path / "configs")
    add_tasks_folder()
    assert sys.path[0] == str(tmp_path / "configs")


@pytest.fixture
def installed(tmp_path):
    """The environment of a Python that finds `ift_jax`, but not this checkout's tasks/."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "ift_jax").symlink_to(ROOT / "ift_jax")
    return os.environ | {"PYTHONPATH": str(packages)}


def _table_in(folder: Path, environment: dict[str, str]) -> str:
    """What a fresh Python prints as the table of the module `tasks` in a working folder."""
    program = (
        "from ift_jax.config.systems import add_tasks_folder, systems_table\n"
        "add_tasks_folder()\nprint(dict(systems_table('tasks')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_a_users_own_tasks_need_no_table(tmp_path, installed):
    file, folder, package = (tmp_path / name for name in ("file", "folder", "package"))
    for own in (file, folder, package):
        own.mkdir()
    (file / "tasks.py").write_text("x = 1\n")
    (folder / "tasks").mkdir()
    (folder / "tasks" / "mine.py").write_text("")
    (package / "tasks").mkdir()
    (package / "tasks" / "__init__.py").write_text('SYSTEMS = {"my_": "tasks.mine"}\n')
    assert _table_in(file, installed) == "{}"
    assert _table_in(folder, installed) == "{}"
    assert _table_in(package, installed) == "{'my_': 'tasks.mine'}"


def test_a_recipe_of_the_checkout_works_from_a_folder_with_its_own_tasks(tmp_path, installed):
    (tmp_path / "tasks.py").write_text("raise RuntimeError('a file of the user is imported')\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise RuntimeError('so is this')\n")
    command = [sys.executable, "-m", "ift_jax.commands.main", "train", "--dry-run"]
    command += ["--config", str(ROOT / "configs" / "t0.py") + ":3b", "--workdir", "run"]
    result = subprocess.run(command, cwd=tmp_path, env=installed, capture_output=True, text=True)
    assert '"tasks.t0.tasks"' in result.stdout, result.stdout + result.stderr
    assert "RuntimeError" not in result.stderr


def test_a_module_that_is_not_there_has_an_empty_table():
    assert systems_table("") == systems_table("nowhere") == systems_table("nowhere.else") == {}


def test_a_table_of_another_kind_is_named(own_path, tmp_path):
    (tmp_path / "odd_systems.py").write_text("SYSTEMS = {'a': 1}\n")
    sys.path.insert(0, str(tmp_path))
    with pytest.raises(UserError, match="odd_systems.SYSTEMS must map"):
        systems_table("odd_systems")


def test_the_longest_beginning_decides():
    systems = {"t5": "a", "t5_glue": "b", "flan": "c"}
    assert modules_of(systems, "t5_glue_mnli", "", "flan_x", "t5_squad") == ("b", "c", "a")
    assert modules_of(systems, "unknown") == ()
    assert modules_of(systems, "flan_x_5_shot") == ("c", "ift_jax.sources.few_shot")
