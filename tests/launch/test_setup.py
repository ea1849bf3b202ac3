"""launch/setup.sh with a stand-in for uv that records what it is asked for."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.launch.fakes import ROOT, executable

UV = """#!/usr/bin/env bash
[[ $1 != --version ]] || exit 0
printf '%s\\n' "$@" >"$RECORD/arguments"
env | grep '^UV_' | sort >"$RECORD/variables" || true
printf '%s' "$SAYS"
exit "${CODE:-0}"
"""


class Setup:
    def __init__(self, base):
        self.base = base
        self.venv = base / "venv"
        executable(base / "bin" / "uv", UV)

    def __call__(self, *extras, **variables):
        for name in ("arguments", "variables"):
            (self.base / name).unlink(missing_ok=True)
        fixed = {
            "PATH": f"{self.base / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.base),  # Without the user's configuration of pip.
            "PIP_CONFIG_FILE": os.devnull,
            "PYTHON": sys.executable,
            "VENV": str(self.venv),
            "RECORD": str(self.base),
            "SAYS": "",
        }
        return subprocess.run(
            [ROOT / "launch" / "setup.sh", *extras],
            env=fixed | variables,
            cwd=self.base,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def recorded(self, name):
        file = self.base / name
        return file.read_text().splitlines() if file.exists() else None


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment with packages that a stand-in installed; creating it takes seconds."""
    setup = Setup(tmp_path_factory.mktemp("environment"))
    done = setup()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Creating {setup.venv} with Python 3.")
    return setup


@pytest.fixture
def setup(environment):
    """The environment, before any packages were installed."""
    (environment.venv / "ift-setup.txt").unlink(missing_ok=True)
    return environment


def test_installs_the_checkout_with_the_tested_versions_and_only_once(setup):
    done = setup("test")
    assert done.returncode == 0, done.stderr
    version = "311" if sys.version_info[:2] == (3, 11) else "312"
    constraints = str(ROOT / "launch" / "constraints" / f"py{version}.txt")
    arguments = setup.recorded("arguments")
    assert arguments[:4] == ["pip", "install", "--python", str(setup.venv / "bin" / "python")]
    assert arguments[4:8] == ["--constraint", constraints, "--build-constraint", constraints]
    assert arguments[8:10] == ["--editable", f"{ROOT}[test]"]
    again = setup("test")
    assert (again.returncode, again.stdout, setup.recorded("arguments")) == (0, "", None)


def test_extras_add_up(setup):
    setup("test")
    setup("plan")
    assert f"{ROOT}[plan,test]" in setup.recorded("arguments")
    assert setup("test", "plan").stdout == ""


def test_a_wheel_instead_of_the_checkout(setup):
    wheel = setup.base / "ift_jax-0-py3-none-any.whl"
    wheel.write_bytes(b"one")
    assert setup("gcs", WHEEL=wheel.name).returncode == 0
    assert f"{wheel}[gcs]" in setup.recorded("arguments")
    assert setup("gcs", WHEEL=wheel.name).stdout == ""
    wheel.write_bytes(b"another")
    setup("gcs", WHEEL=wheel.name)
    assert f"{wheel}[gcs]" in setup.recorded("arguments")


def test_an_interrupted_setup_is_repeated(setup):
    assert setup("test", CODE="1").returncode == 1
    assert setup("test").returncode == 0
    assert setup.recorded("arguments")


def test_uv_gets_the_indexes_and_wheels_of_pips_configuration(setup):
    folder = str(setup.base)
    setup(
        PIP_INDEX_URL="https://mirror.example/simple",
        PIP_EXTRA_INDEX_URL="https://a.example/simple https://b.example/simple",
        PIP_FIND_LINKS=f"{folder} {folder}/bin",
    )
    assert setup.recorded("variables") == [
        "UV_DEFAULT_INDEX=https://mirror.example/simple",
        f"UV_FIND_LINKS={folder},{folder}/bin",
        "UV_INDEX=https://a.example/simple https://b.example/simple",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]
    (setup.venv / "ift-setup.txt").unlink()
    own = "https://own.example/simple"
    setup(PIP_INDEX_URL="https://mirror.example/simple", UV_DEFAULT_INDEX=own)
    assert setup.recorded("variables") == [f"UV_DEFAULT_INDEX={own}"]


def test_modules_are_compiled_where_python_may_not_keep_bytecode(setup):
    setup(PYTHONDONTWRITEBYTECODE="1")
    assert setup.recorded("variables") == ["UV_COMPILE_BYTECODE=1"]


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (
            "error: Failed to fetch: `https://index.example/jax/`\n"
            "  cause: error sending request for url (https://index.example/jax/)\n",
            "error: packages could not be downloaded: is there a network?",
        ),
        (
            "error: Failed to build `ift-jax`\n  cause: The build backend returned an error\n",
            "error: the packages could not be installed: Failed to build `ift-jax`: "
            "The build backend returned an error;",
        ),
    ],
)
def test_a_failure_of_uv_is_one_line(setup, says, expected):
    done = setup("test", SAYS=says, CODE="2")
    assert done.returncode == 1
    assert done.stderr.startswith(expected) and done.stderr.count("\n") == 1
    log = setup.venv / "ift-setup.log"
    assert str(log) in done.stderr and log.read_text() == says


def test_an_unknown_extra_and_an_unsuitable_python_are_one_line(setup):
    done = setup("nosuch")
    assert done.returncode == 1 and setup.recorded("arguments") is None
    assert done.stderr.startswith("error: there is no extra nosuch; pyproject.toml has beam, ")
    old = setup.base / "python3.9"
    executable(old, "#!/bin/sh\necho 3.9\n")
    done = setup(PYTHON=str(old))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: Python 3.11, 3.12 or 3.13 is needed: {old} is 3.9; "
        "set PYTHON=/path/to/python3.12\n"
    )
    assert shutil.which("python", path=setup.venv / "bin")  # The environment is still there.


def _editable(setup, checkout):
    """The record that uv leaves of a checkout that it installed."""
    (packages,) = (setup.venv / "lib").glob("python3*/site-packages")
    info = packages / "ift_jax-0.1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ift-jax\nVersion: 0.1.0\n")
    record = {"url": checkout.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(record))
    return info


def test_the_environment_of_another_checkout_is_not_taken_over(setup, tmp_path):
    other = tmp_path / "another checkout"
    other.mkdir()
    (other / "pyproject.toml").touch()
    info = _editable(setup, other)
    try:
        refused = setup()
        assert refused.returncode == 1 and setup.recorded("arguments") is None
        assert refused.stderr.startswith(
            f"error: {setup.venv} is the environment of the checkout {other}, which would then run "
            f"the code of {ROOT}: set VENV to another folder, or delete"
        )
        assert len(refused.stderr.splitlines()) == 1
        (other / "pyproject.toml").unlink()  # It was moved here, or is gone.
        assert setup().returncode == 0
        _editable(setup, ROOT)
        assert setup("gcs").returncode == 0
    finally:
        shutil.rmtree(info)


@pytest.mark.parametrize(
    "name", ["local.sh", "quickstart.sh", "setup.sh", "smollm2.sh", "test.sh", "worker.sh"]
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_the_comment_of_the_script_and_sets_up_nothing(tmp_path, name, flag):
    shown = subprocess.run(
        [ROOT / "launch" / name, flag],
        env={"PATH": "/usr/bin:/bin", "VENV": str(tmp_path / "venv")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"  launch/{name}" in shown.stdout and "set -euo" not in shown.stdout
    assert shown.stderr == "" and not any(tmp_path.iterdir())
