"""The wheel holds `ift_jax` alone and runs beside a user's own tasks/, configs/ and tasks.py."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
# The command, or several of them with "," between them: a process imports JAX for seconds.
PROGRAM = """
import itertools, sys
from ift_jax.commands.main import main
status = 0
for is_comma, words in itertools.groupby(sys.argv[1:], ",".__eq__):
    status = status or (0 if is_comma else main(list(words)))
sys.exit(status)
"""

RECIPE = """
    from ml_collections import ConfigDict

    from ift_jax.config.files import default_config


    def get_config() -> ConfigDict:
        config = default_config("decoder")
        config.data.modules = ("tasks.mine",)
        config.data.mixture = "mine"
        config.data.eval_split = "train"
        config.data.max_length = 64
        config.data.store_dir = {store_dir!r}
        config.tokenizer.train_vocab_size = 300
        config.model.d_model = 16
        config.model.n_layers = 1
        config.model.d_ff = 16
        config.train.steps = 2
        config.train.compile_cache = {cache!r}
        config.train.batch_size = 2
        config.train.eval_rows = 2
        config.train.preview_prompts = 0
        config.train.peak_tflops = 1.0
        return config
"""
TASKS = """
    from ift_jax.sources.register import register_rows_task

    register_rows_task("mine", {{"train": {data!r}}}, inputs="question", targets="answer")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout, built from a copy so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "ift_jax", source / "ift_jax", ignore=ignore)
    for name in ("tasks", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; print(build_meta.build_wheel('../dist'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "dist" / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def ift(wheel, tmp_path_factory):
    """The command `ift` of a fresh environment that holds the wheel.

    The packages that it needs are those of this environment; its editable install of the checkout
    is not among them, because Python does not follow the `.pth` files of such a folder.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    site_packages = Path(sysconfig.get_path("purelib", "venv", paths))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(packages)) + "\n")
    return [str(folder / "bin" / "python"), "-c", PROGRAM]


@pytest.fixture
def user_folder(tmp_path):
    """A user's folder with names that the checkout has, too."""
    rows = [{"question": f"What is {i} plus one?", "answer": str(i + 1)} for i in range(20)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks.py").write_text("raise RuntimeError('tasks.py was imported')\n")
    for name in ("tasks", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    recipe = RECIPE.format(store_dir=str(tmp_path / "stores"), cache=str(tmp_path / "compiled"))
    (tmp_path / "configs" / "mine.py").write_text(textwrap.dedent(recipe))
    registration = TASKS.format(data=str(tmp_path / "data.jsonl"))
    (tmp_path / "tasks" / "mine.py").write_text(textwrap.dedent(registration))
    return tmp_path


def run(ift, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # One device, and the flags of the tests, with which XLA compiles faster.
    environment["XLA_FLAGS"] = re.sub(r"(device_count)=\d+", r"\1=1", environment["XLA_FLAGS"])
    return subprocess.run(
        [*ift, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_one_package(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"ift_jax"}
    data = {name for name in names if not name.endswith(".py")}
    kept = {
        str(path.relative_to(ROOT))
        for suffix in ("toml", "jinja")
        for path in (ROOT / "ift_jax").rglob(f"*.{suffix}")
    }
    assert kept and kept <= data


def test_a_users_recipe_trains_from_any_folder(ift, user_folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    generate = [",", "generate", "--workdir", "run", "--prompt", "What is 3?"]
    for cwd, config, more in (
        (user_folder, "configs/mine.py", []),
        (elsewhere, str(user_folder / "configs" / "mine.py"), generate),
    ):
        done = run(ift, "train", "--config", config, "--workdir", "run", *more, cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert "trained to step 2" in done.stdout
        assert (cwd / "run" / "checkpoints" / "2").is_dir()


def test_a_module_tasks_of_the_user_without_systems_is_no_hindrance(ift, tmp_path):
    (tmp_path / "tasks.py").write_text("answer = 42\n")
    asked = ["inspect", ",", "inspect", "gsm8k", "--config.data.root=nowhere"]
    done = run(ift, *asked, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "gsm8k" in done.stderr and "is this the folder of the checkout?" in done.stderr
    assert done.stdout.startswith("no systems:")  # Which ended with status 0.
