"""launch/local.sh and the scripts that call it, with stand-ins for the set-up and for ift."""

import shutil
import subprocess

import pytest

from tests.launch.fakes import AWKWARD, ROOT, executable

IFT = """#!/usr/bin/env bash
printf '%s|' "$PWD" "${GLIBC_TUNABLES:-}" "${JAX_NUM_CPU_DEVICES:-}" "$@"
"""
PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"


@pytest.fixture
def checkout(tmp_path):
    for name in ("local.sh", "quickstart.sh"):
        (tmp_path / "launch").mkdir(exist_ok=True)
        shutil.copy(ROOT / "launch" / name, tmp_path / "launch" / name)
    executable(tmp_path / "launch" / "setup.sh", '#!/bin/sh\necho "$@" >"$(dirname "$0")/extras"\n')
    executable(tmp_path / ".venv" / "bin" / "ift", IFT)
    return tmp_path


def run(checkout, name, *arguments, **environment):
    result = subprocess.run(
        [checkout / "launch" / name, *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.split("|")[:-1]


def test_runs_ift_in_the_checkout_with_huge_pages(checkout):
    assert run(checkout, "local.sh", *AWKWARD) == [str(checkout), PAGES, "", *_split(AWKWARD)]
    assert (checkout / "launch" / "extras").read_text() == "\n"


def test_extras_devices_and_the_users_own_malloc_settings(checkout):
    words = run(checkout, "local.sh", EXTRAS="cuda12 hf", DEVICES="8", GLIBC_TUNABLES="a=1")
    assert words == [str(checkout), "a=1", "8"]
    assert (checkout / "launch" / "extras").read_text() == "cuda12 hf\n"


def test_the_quickstart_is_one_training_run(checkout):
    words = run(checkout, "quickstart.sh", "--config.train.epochs=2")
    assert words[3:] == [
        "train",
        "--config",
        "configs/quickstart.py",
        "--workdir",
        "runs/quickstart",
        "--config.train.epochs=2",
    ]


def _split(words):
    """Split at bars, which the stand-in prints between arguments, and some arguments contain."""
    return "|".join(words).split("|")
