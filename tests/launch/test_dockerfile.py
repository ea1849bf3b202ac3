"""The image of launch/Dockerfile: what can be checked without Docker, and its build where it runs.

No machine of this project's tests has run Docker so far, so the last test has always been skipped.
"""

import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.launch.fakes import ROOT

DOCKERFILE = (ROOT / "launch" / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def instructions():
    """The instructions of the Dockerfile: (name, the rest)."""
    text = re.sub(r"\\\n", " ", DOCKERFILE)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def argument_of(name):
    [argument] = [rest for instruction, rest in instructions() if instruction == name]
    return argument


def patterns(file):
    lines = (ROOT / file).read_text().splitlines()
    return [line.strip("/") for line in lines if line and not line.startswith(("#", "!"))]


def is_ignored(path):
    """Whether a pattern of .dockerignore takes a file, or a folder above it, out of the build."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    return any(
        fnmatch.fnmatchcase(
            part if pattern.startswith("**/") else folder, pattern.removeprefix("**/")
        )
        for pattern in patterns(".dockerignore")
        for folder, part in zip(above, parts, strict=True)
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The files that `COPY . .` puts into the image."""
    folder = tmp_path_factory.mktemp("image")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not is_ignored(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_the_checkout_is_copied_into_the_folder_where_commands_run():
    """`ift train --config configs/...` has to find the recipe there."""
    names = [name for name, _ in instructions()]
    assert argument_of("WORKDIR") == "/app" and argument_of("COPY") == ". ."
    assert names.index("WORKDIR") < names.index("COPY") < names.index("RUN")


def test_the_image_holds_every_recipe_and_no_tests(image):
    for room in ("ift_jax", "tasks", "configs", "launch"):
        listed = subprocess.run(
            ["git", "ls-files", room], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
        assert names and all((image / name).is_file() for name in names)
    assert not (image / "tests").exists()


def test_what_git_ignores_does_not_reach_the_image():
    made = [re.sub(r"\*", "x", pattern) for pattern in patterns(".gitignore")]
    assert made and all(is_ignored(f"{name}/file") for name in made)
    assert is_ignored("tasks/flan/__pycache__/source.pyc") and is_ignored(".git/config")
    assert not is_ignored("ift_jax/io/outputs.py")


def test_setuptools_finds_in_the_image_what_the_package_is_made_of(image):
    code = (
        "from setuptools.build_meta import prepare_metadata_for_build_editable as prepare\n"
        "import pathlib, tempfile\n"
        "folder = tempfile.mkdtemp()\n"
        "print((pathlib.Path(folder) / prepare(folder) / 'METADATA').read_text())\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=image, capture_output=True, text=True, timeout=60
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert "\nName: ift-jax\n" in made.stdout and "# ift_jax" in made.stdout


def test_its_python_is_one_that_the_project_supports():
    version = re.fullmatch(r"python:(3\.\d+)-slim", argument_of("FROM"))[1]
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    assert (ROOT / "launch" / "constraints" / f"py{version.replace('.', '')}.txt").exists()


def test_it_runs_scripts_that_are_there_with_extras_that_exist(image):
    set_up, remove, readable = argument_of("RUN").split(" && ")
    variable, script, *extras = shlex.split(set_up)
    assert variable == "UV_COMPILE_BYTECODE=1" and extras == ["$EXTRA", "gcs"]
    assert (image / script).stat().st_mode & 0o111 and "gcs" in EXTRAS
    assert remove == "rm -rf /root/.cache" and readable == "chmod -R a+rX /app"
    assert argument_of("ARG") == 'EXTRA=""'
    pages = [ROOT / "docs" / "cloud_tpu.md", ROOT / "docs" / "commands.md"]
    builds = [DOCKERFILE, *(page.read_text() for page in pages)]
    named = re.findall(r"--build-arg EXTRA=(\w+)", "\n".join(builds))
    assert {"cuda12", "tpu"} <= set(named) <= set(EXTRAS)
    assert len(re.findall(r"docker build --file launch/Dockerfile\b", "\n".join(builds))) >= 6


def test_its_command_is_ift_for_a_user_without_a_name():
    assert argument_of("ENTRYPOINT") == '["ift"]' and "ift" in PROJECT["scripts"]
    variables = dict(word.split("=", 1) for word in argument_of("ENV").split())
    assert variables["PATH"].startswith("/app/.venv/bin:")
    assert variables["HOME"] == "/tmp" and variables["LOGNAME"]  # See getpass.getuser.


def docker(*arguments, timeout):
    return subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout
    )


@pytest.mark.slow
def test_docker_builds_and_runs_it(tmp_path):
    if not shutil.which("docker"):
        pytest.skip("there is no docker here")
    base = docker("pull", argument_of("FROM"), timeout=120)
    if base.returncode:
        pytest.skip(f"docker cannot pull the base image: {base.stderr.strip()[-200:]}")
    built = docker("build", "--file=launch/Dockerfile", "--tag=ift_jax:test", ".", timeout=1200)
    assert built.returncode == 0, built.stderr[-3000:]
    rows = [f'{{"inputs": "say {n}", "targets": "{n}"}}\n' for n in range(40)]
    tmp_path.chmod(0o777)
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    ran = docker(
        *("run", "--rm", "--user=12345:12345", f"--volume={tmp_path}:{tmp_path}"),
        *(f"--workdir={tmp_path}", "ift_jax:test", "prepare"),
        *(
            "--config",
            "/app/configs/jsonl.py:rows.jsonl",
            "--config.tokenizer.train_vocab_size=300",
        ),
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    assert (tmp_path / "stores").is_dir()
