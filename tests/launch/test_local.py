"""launch/local.sh and the scripts that call it, with stand-ins for the set-up and for ift."""

import itertools
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


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("local.sh", ["--help"]),
        ("setup.sh", ["-h"]),
        ("smollm2.sh", ["--help"]),
        ("smollm2.sh", ["train", "--help"]),
        ("test.sh", ["--help"]),
        ("worker.sh", ["--help"]),
    ],
)
def test_help_is_what_a_script_begins_with_and_does_nothing(name, words, tmp_path):
    shutil.copy(ROOT / "launch" / name, tmp_path / name)  # Alone: nothing can be set up.
    done = subprocess.run(
        [tmp_path / name, *words], capture_output=True, text=True, check=True, cwd="/"
    )
    lines = (tmp_path / name).read_text().splitlines()[1:]
    comment = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert done.stdout.splitlines() == [
        line.removeprefix("#").removeprefix(" ") for line in comment
    ]
    assert f"launch/{name} " in done.stdout and done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_word_is_refused_before_anything_is_set_up(tmp_path):
    shutil.copy(ROOT / "launch" / "smollm2.sh", tmp_path / "smollm2.sh")
    done = subprocess.run([tmp_path / "smollm2.sh", "trian"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: trian: expected chat, train, convert or a flag of ift")


def _split(words):
    """Split at bars, which the stand-in prints between arguments, and some arguments contain."""
    return "|".join(words).split("|")
