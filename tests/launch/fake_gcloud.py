"""A stand-in for `gcloud compute tpus` that records each call, keeps a TPU's state, and has hosts.

A host is a home folder. Commands sent through ssh are run there by bash, as sshd does with the one
string that it gets, so that wrong quoting breaks a test. The scenario is a JSON file beside the
records.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BASE = Path(os.environ["FAKE_GCLOUD"])
READY = {"tpu-vm": "READY", "queued-resources": "ACTIVE"}


def load() -> dict:
    return json.loads((BASE / "scenario.json").read_text())


def save(scenario: dict) -> None:
    (BASE / "scenario.json").write_text(json.dumps(scenario))


def flag(argv: list[str], name: str, default: str = "") -> str:
    return next((a.partition("=")[2] for a in argv if a.startswith(f"--{name}=")), default)


def fail(verb: str, message: str) -> None:
    sys.exit(f"ERROR: (gcloud.compute.tpus.{verb}) {message}")


def signal_job(home: Path, number: int) -> None:
    for file in home.glob("ift_jobs/*/pid"):
        if number == signal.SIGKILL:
            while os.getsid(int(file.read_text())) != int(file.read_text()):
                time.sleep(0.01)  # It does not have its own session yet.
            os.killpg(int(file.read_text()), number)
        else:
            os.kill(int(file.read_text()), number)


def on_hosts(argv: list[str], homes: list[Path]) -> int:
    """Run the command of ssh on each host; return the last exit status that is not 0."""
    command = flag(argv, "command").replace("bash launch/worker.sh setup tpu gcs", "true")
    status = 0
    for home in homes:
        home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "HOME": str(home), "HOSTNAME": home.name}
        done = subprocess.run(["bash", "-c", command], cwd=home, env=environment)
        status = done.returncode or status
    return status


def describe(scenario: dict, kind: str) -> None:
    states = scenario["states"]
    state = states.pop(0) if len(states) > 1 else states[0]
    save(scenario)
    if state == "ABSENT":
        fail(f"{kind}.describe", "NOT_FOUND: Resource 'projects/p/...' was not found")
    node = {"acceleratorType": scenario["type"]}
    if kind == "tpu-vm":
        print(json.dumps({"state": state, **node}))
    else:
        spec = {"node": node, "multisliceParams": {"nodeCount": scenario["slices"]}}
        print(json.dumps({"state": {"state": state}, "tpu": {"nodeSpec": [spec]}}))


def ssh(scenario: dict, kind: str, argv: list[str], homes: list[Path]) -> int:
    if "worker.sh follow" in flag(argv, "command") and scenario["follow"]:
        event = scenario["follow"].pop(0)
        scenario["states"] = event.get("states", scenario["states"])
        save(scenario)
        # A program that has set no trap yet would only end by its signal.
        while len(list(BASE.glob("ready.*"))) < event.get("ready", 0):
            time.sleep(0.05)
        for host, number in event.get("signals", {}).items():
            signal_job(homes[int(host)], number)
        if event.get("drop"):
            return 255
    if scenario["states"][0] != READY[kind]:
        return 255  # No host answers.
    first_only = flag(argv, "worker") == "0"
    return on_hosts(argv, homes[:1] if first_only else homes)


def main() -> None:
    argv = [word for word in sys.argv[1:] if word != "alpha"]
    with (BASE / "calls.jsonl").open("a") as calls:
        print(json.dumps(sys.argv[1:]), file=calls)
    kind, verb = argv[2:4]
    scenario = load()
    homes = [BASE / f"host{i}" for i in range(scenario["hosts"])]
    if scenario["fail"].get(verb):
        message = scenario["fail"][verb].pop(0)
        save(scenario)
        if message:
            fail(f"{kind}.{verb}", message)
    if verb == "describe":
        describe(scenario, kind)
    elif verb == "create":
        scenario["states"] = scenario["after_create"] or ["CREATING", READY[kind]]
        scenario["after_create"] = None
        save(scenario)
    elif verb == "start":
        scenario["states"] = ["STARTING", READY[kind]]
        save(scenario)
    elif verb == "delete":
        scenario["states"] = ["ABSENT"]
        save(scenario)
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)
    elif verb == "scp":
        for home in homes:
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy(argv[4], home / argv[5].partition(":")[2])
    elif verb == "ssh":
        sys.exit(ssh(scenario, kind, argv, homes))
    else:
        sys.exit(f"unexpected: {argv}")


if __name__ == "__main__":
    main()
