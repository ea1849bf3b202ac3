"""launch/xpk.py with a stand-in for xpk that records its calls."""

import json
import os
import shlex
import subprocess
import sys

import pytest

from tests.launch.fakes import AWKWARD, EARLY_SIGNAL, PATIENCE, ROOT, executable, launch

FAKE = """
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
codes = json.loads(os.environ.get("CODES", "{}"))
sys.exit(codes.get(" ".join(sys.argv[1:3]), 0))
"""
PLACE = ["--cluster=pod", "--project=my-project-1", "--zone=us-central1-c"]
ARGUMENTS = ["sft", *PLACE, "--tpu-type=tpu7x-128"]
IMAGE = "us-docker.pkg.dev/my-project-1/images/ift_jax:1"


@pytest.fixture
def xpk(tmp_path):
    """Return a function that runs the launcher and returns the result and the calls of xpk."""
    program = tmp_path / "fake_xpk.py"
    program.write_text(FAKE)
    executable(tmp_path / "bin" / "xpk", f'#!/bin/sh\nexec {sys.executable} -I -S {program} "$@"\n')

    def run(*arguments, **codes):
        calls = tmp_path / "calls.jsonl"
        environment = {"CALLS": str(calls), "CODES": json.dumps(codes.get("codes", {}))}
        result = launch("xpk.py", *ARGUMENTS, *arguments, path=tmp_path / "bin", **environment)
        lines = calls.read_text().splitlines() if calls.exists() else []
        return result, [json.loads(line) for line in lines]

    return run


def test_submits_an_image_and_waits(xpk):
    result, calls = xpk(
        "--num-slices=2",
        f"--docker-image={IMAGE}",
        "--env=A=b c",
        "--priority=high",
        "--max-restarts=7",
        "--xpk-flag=--some=x",
        "--",
        "ift",
        "train",
        "--config",
        "configs/tulu3.py:8b",
    )
    assert result.returncode == 0, result.stderr
    assert calls == [
        [
            "workload",
            "create",
            "--workload=sft",
            *PLACE,
            "--tpu-type=tpu7x-128",
            "--num-slices=2",
            f"--docker-image={IMAGE}",
            "--priority=high",
            "--max-restarts=7",
            "--termination-grace-period-seconds=120",
            "--env=A=b c",
            "--some=x",
            calls[0][-1],
        ],
        ["workload", "list", *PLACE, "--wait-for-job-completion=sft"],
    ]


def test_the_pods_shell_gives_the_command_its_arguments(xpk):
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"
    words = [sys.executable, "-c", program, *AWKWARD]
    _, calls = xpk(f"--docker-image={IMAGE}", "--", *words)
    line = calls[0][-1].removeprefix("--command=")
    # XPK's pod runs it in a subshell of bash.
    ran = subprocess.run(["bash", "-c", f"({line}) & wait $!"], capture_output=True, text=True)
    assert json.loads(ran.stdout) == AWKWARD


@pytest.mark.parametrize(("ends", "expected"), [("exit 3", 3), ("exit 0", 0), (None, 143)])
def test_a_pod_that_was_told_to_go_fails_though_its_run_saved(xpk, ends, expected):
    """Kubernetes takes an exit status of 0 for the end of the run, and starts no pod again."""
    saves = "trap 'sleep 0.2; echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    _, calls = xpk(f"--docker-image={IMAGE}", "--", "bash", "-c", ends or saves)
    line = calls[0][-1].removeprefix("--command=")
    # XPK's pod runs it in a subshell of bash, to which it passes SIGTERM on.
    pod = f"trap 'kill -TERM $!' TERM; ({line}) & while kill -0 $! 2>/dev/null; do wait $!; done"
    process = subprocess.Popen(["bash", "-c", f"{pod}; wait $!"], stdout=subprocess.PIPE, text=True)
    if not ends:
        assert process.stdout.readline() == "up\n"
        process.terminate()
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (expected, "" if ends else "saved\n")


def test_a_signal_before_the_commands_number_is_known_is_passed_on(xpk, tmp_path):
    _, calls = xpk(f"--docker-image={IMAGE}", "--", "bash", "-c", "while :; do sleep 0.05; done")
    line = calls[0][-1].removeprefix("--command=")
    (tmp_path / "early").write_text(EARLY_SIGNAL)
    environment = {"PATH": os.environ["PATH"], "BASH_ENV": str(tmp_path / "early")}
    ran = subprocess.run(["bash", "-c", f"({line}) & wait $!"], env=environment, timeout=PATIENCE)
    assert ran.returncode == 143


def test_without_an_image_the_checkout_is_set_up_in_the_pod(xpk, tmp_path):
    _, calls = xpk("--", "ift", "chat", "two words")
    assert "--base-docker-image=python:3.12" in calls[0] and f"--script-dir={ROOT}" in calls[0]
    executable(tmp_path / "pod" / "launch" / "setup.sh", "#!/bin/sh\necho set up $1\n")
    executable(tmp_path / "pod" / ".venv" / "bin" / "ift", '#!/bin/sh\necho "ift($1|$2)"\n')
    ran = subprocess.run(
        ["bash", "-c", calls[0][-1].removeprefix("--command=")],
        cwd=tmp_path / "pod",
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "set up tpu\nift(chat|two words)\n"


def test_creates_and_deletes_only_with_the_flags(xpk):
    result, calls = xpk(
        "--create-cluster",
        "--spot",
        "--disk-size=200",
        "--label=team=nlp",
        "--tag=ssh",
        "--node-pool-flag=--metadata=a=b c",
        "--cluster-flag=--gke-version=1.34",
        "--delete",
        "--delete-cluster",
        "--",
        "ift",
    )
    assert result.returncode == 0, result.stderr
    assert [" ".join(call[:2]) for call in calls] == [
        "cluster create",
        "workload create",
        "workload list",
        "workload delete",
        "cluster delete",
    ]
    node_pool = "--disk-size=200 --labels=team=nlp --tags=ssh '--metadata=a=b c'"
    assert calls[0][2:] == [
        *PLACE,
        "--tpu-type=tpu7x-128",
        "--num-slices=1",
        "--spot",
        f"--custom-nodepool-arguments={node_pool}",
        "--gke-version=1.34",
    ]
    assert calls[3][2:] == ["--workload=sft", *PLACE, "--force"]
    assert calls[4][2:] == [*PLACE, "--force"]


def test_a_workload_that_fails_is_an_error_and_deleted_only_with_the_flag(xpk):
    result, calls = xpk("--delete", "--", "ift", codes={"workload list": 125})
    assert result.returncode == 1
    assert result.stderr.startswith("error: the workload sft failed")
    assert calls[-1][:2] == ["workload", "delete"]
    result, calls = xpk("--", "ift", codes={"workload create": 2})
    assert result.returncode == 1
    assert result.stderr.startswith("error: could not submit sft: xpk exited with 2")
    assert calls[-1][:2] == ["workload", "create"]


def test_dry_run_calls_nothing_and_prints_the_same(xpk):
    result, calls = xpk("--delete", "--dry-run", "--", "ift", *AWKWARD)
    assert result.returncode == 0 and calls == []
    printed = [
        shlex.split(line, comments=False)[1:]
        for line in result.stdout.splitlines()
        if not line.startswith("#")
    ]
    assert printed == xpk("--delete", "--", "ift", *AWKWARD)[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tpu-type=v5p; id", "--", "ift"], "is not VERSION-SIZE"),
        (["--tpu-type=tpu7x-9", "--", "ift"], "the nearest are tpu7x-8 and tpu7x-16"),
        (["--tpu-type=v6e-3x3", "--", "ift"], "there is no slice of 9 chips"),
        (["--tpu-type=v5e-4x4", "--", "ift"], "it is called v5litepod-4x4"),
        (["--disk-size=200", "--", "ift"], "--disk-size is for --create-cluster alone"),
        (["--spot", "--", "ift"], "--spot is for --create-cluster alone"),
        (["--xpk-flag=x", "--", "ift"], "is not a flag"),
        (["--create-cluster", "--", "ift"], "needs --spot, --on-demand or --reservation"),
        (["--no-wait", "--delete", "--", "ift"], "has no end at which to delete"),
        (["--", "ift", "$(id)"], "cannot pass on"),
        (["--", "ift", "a\nb"], "cannot pass on"),
        (["--env=A=$(id)", "--", "ift"], "cannot pass on"),
        ([], "no command"),
    ],
)
def test_arguments_are_checked_before_anything_runs(xpk, arguments, said):
    result, calls = xpk(*arguments)
    assert result.returncode in (1, 2) and said in result.stderr
    assert calls == []
