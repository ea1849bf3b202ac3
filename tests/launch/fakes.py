"""Stand-ins for the tools of clouds and clusters, and how to run a launcher with them."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # Seconds for what takes one, on a machine that is busy with other things.
# Arguments that a shell, a YAML writer or a format string could break.
AWKWARD = ["two words", "it's", 'say "x"', "$HOME", "`id`", "a;b|c&d", "*", "\\n", "{x}", "#", ""]

# Bash reads it before a script: SIGTERM then comes before the script knows its command's number.
EARLY_SIGNAL = """set -T
trap 'case $BASH_COMMAND in step=\\$!|child=\\$!) kill -TERM $BASHPID;; esac' DEBUG
"""


def executable(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def launch(script: str, *arguments: str, path: Path, **environment: str):
    """Run a launcher with the stand-ins first on PATH and without the project's packages."""
    return subprocess.run(
        [sys.executable, "-E", "-S", ROOT / "launch" / script, *arguments],
        env={"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class Cloud:
    """A fake Google Cloud with one TPU."""

    def __init__(self, base: Path):
        self.base, self.bin = base, base / "bin"
        fake = Path(__file__).with_name("fake_gcloud.py")
        executable(self.bin / "gcloud", f'#!/bin/sh\nexec {sys.executable} -I -S {fake} "$@"\n')
        self.scenario(states=["ABSENT"])

    def scenario(self, states, hosts=1, accelerator="v5litepod-16", slices=1, **more) -> None:
        """Set what happens next: `follow` at the looks at the log, `fail` when a verb is called."""
        content = {
            "states": states,
            "hosts": hosts,
            "type": accelerator,
            "slices": slices,
            "follow": [],
            "fail": {},
            "after_create": None,
            **more,
        }
        (self.base / "scenario.json").write_text(json.dumps(content))

    def tpu(self, verb: str, *arguments: str):
        where = ("--project=my-project-1", "--zone=us-west4-a")
        quick = ("--poll=0",) if verb == "run" else ()
        words = ("tpu_vm.py", verb, "sft", *where, *quick, *arguments)
        return launch(*words, path=self.bin, FAKE_GCLOUD=str(self.base))

    def run(self, *arguments: str):
        return self.tpu("run", "--accelerator-type=v5litepod-16", *arguments)

    def calls(self) -> list[list[str]]:
        file = self.base / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def verbs(self) -> list[str]:
        """The calls in short, without looks at the state: create, scp, start, follow, ..."""
        short = []
        for call in self.calls():
            verb = call[call.index("tpus") + 2]
            if verb == "ssh":
                (command,) = (word for word in call if word.startswith("--command="))
                verb = "set up" if "tar -x" in command else shlex.split(command)[2]
            if verb not in ("describe", "status"):
                short.append(verb)
        return short

    def close(self) -> None:
        for file in self.base.glob("host*/ift_jobs/*/pid"):
            try:
                os.killpg(int(file.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
