"""launch/worker.sh on this machine: a job that outlives what started it, and its states."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.launch.fakes import AWKWARD, EARLY_SIGNAL, PATIENCE, ROOT

SAVES = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"


class Worker:
    def __init__(self, home):
        self.folder = home / "ift_jobs" / "j"
        self.environment = {"HOME": str(home), "PATH": os.environ["PATH"], "HOSTNAME": "h"}

    def __call__(self, verb, *words):
        return subprocess.run(
            [ROOT / "launch" / "worker.sh", verb, "j", *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def state(self):
        return self("status").stdout.removeprefix("ift-job j h ").strip()

    def pid(self):
        return int((self.folder / "pid").read_text())

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def until_up(self):
        self.until(lambda: "up" in (self.folder / "log").read_text())


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    yield worker
    try:
        os.killpg(worker.pid(), signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        pass


def test_a_job_runs_to_its_end_with_its_arguments(worker):
    assert worker.state() == "absent"
    program = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]])); sys.exit(3)"
    started = worker("start", sys.executable, "-c", program, *AWKWARD)
    assert started.stdout == "ift-job j h started\n"
    worker.until(lambda: worker.state() != "running")
    assert worker.state() == "exited 3"
    log = worker("follow", "0").stdout
    assert json.loads(log) == [str(ROOT), *AWKWARD]
    assert worker("follow", str(len(log) - 5)).stdout == log[-5:]


def test_a_signal_before_the_commands_number_is_known_is_passed_on(worker, tmp_path):
    (tmp_path / "early").write_text(EARLY_SIGNAL)
    worker.environment["BASH_ENV"] = str(tmp_path / "early")
    worker.folder.mkdir(parents=True)
    worker("run", "bash", "-c", "while :; do sleep 0.05; done")
    assert (worker.folder / "result").read_text() == "terminated 143\n"


def test_a_job_has_its_own_session_and_is_started_once(worker):
    assert worker("start", "bash", "-c", SAVES).returncode == 0
    worker.until_up()
    pid = worker.pid()
    assert os.getsid(pid) == pid != os.getsid(0)
    assert worker("start", "bash", "-c", SAVES).returncode == 0
    assert worker.pid() == pid and worker.state() == "running"
    other = worker("start", "true")
    assert (
        other.returncode == 1
        and "job j is already running another command on h; stop it first" in other.stderr
    )


def test_stopped_terminated_and_lost_are_told_apart(worker):
    worker("start", "bash", "-c", SAVES)
    worker.until_up()
    assert worker("stop").stdout == "ift-job j h stopped 0\n"
    assert (worker.folder / "log").read_text() == "up\nsaved\n"

    worker("start", "bash", "-c", "echo again; " + SAVES)
    worker.until(lambda: "again\nup" in (worker.folder / "log").read_text())
    os.kill(worker.pid(), signal.SIGTERM)  # The host does this when it is preempted.
    worker.until(lambda: worker.state() != "running")
    assert worker.state() == "terminated 0"

    worker("start", "bash", "-c", SAVES)
    worker.until(lambda: os.getsid(worker.pid()) == worker.pid())
    os.killpg(worker.pid(), signal.SIGKILL)
    worker.until(lambda: worker.state() != "running")
    assert worker.state() == "lost"


def test_a_process_id_from_before_a_restart_of_the_host_is_not_the_job(worker):
    worker("start", "sleep", "60")
    (worker.folder / "boot").write_text("another\n")
    assert worker.state() == "lost"


def test_misuse_is_one_line(worker):
    assert worker("jump").stderr == "error: unknown verb: jump\n"
    assert worker("follow", "0").stderr == "error: there is no job j on h\n"
