"""Seconds of `ift prepare` and of the start of `ift train` with a mixture of many tasks.

    python -m benchmarks.many_tasks [--tasks 1600] [--instances 40] [--folder FOLDER]

The tasks are made files of Super-NaturalInstructions, of which a sixteenth is held out: each of the
others has a training and a validation store. `prepare` makes all stores and the tokenizer; `train`
finds them and runs to the end of the first step, as in `benchmarks.startup`. CPU seconds are those
of all processes until then. Prints one JSON object, in which `stores` is a hash of the bytes of all
parts of stores, so that two versions of the code can be compared.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import CpuTime, describe
from benchmarks.made_data import made_words
from benchmarks.startup import seconds_to_first_step

HELD_OUT = 16  # One of so many tasks.


def write_release(root: Path, n_tasks: int, n_instances: int) -> None:
    """Write a folder as that of github.com/allenai/natural-instructions."""
    rng = np.random.default_rng(6)
    words = np.array(made_words(rng, 5000))
    for folder in ("tasks", "splits/default"):
        (root / folder).mkdir(parents=True)
    names: dict[str, list[str]] = {"train_tasks": [], "test_tasks": []}

    def text(length: int) -> str:
        return " ".join(rng.choice(words, length).tolist())

    for i in range(n_tasks):
        name = f"task{i:04d}_made"
        examples = [{"input": text(20), "output": text(3), "explanation": text(5)}] * 2
        instances = [
            {"id": f"{name}-{j}", "input": text(60), "output": [text(8)]}
            for j in range(n_instances)
        ]
        task = {
            "Categories": ["Question Answering"],
            "Definition": [text(40)],
            "Positive Examples": examples,
            "Negative Examples": [],
            "Instances": instances,
        }
        (root / "tasks" / f"{name}.json").write_text(json.dumps(task))
        names["train_tasks" if i % HELD_OUT else "test_tasks"].append(name)
    for list_name, listed in names.items():
        (root / "splits/default" / f"{list_name}.txt").write_text("\n".join(listed) + "\n")


def overrides(folder: Path) -> list[str]:
    """Return the config of both commands, and the fields that say where the data are."""
    return [
        "--config",
        "configs/natural_instructions_small.py",
        f"--config.data.root={folder / 'release'}",
        f"--config.data.store_dir={folder / 'stores'}",
    ]


def prepare(folder: Path) -> float:
    """Run `ift prepare`; return its seconds."""
    command = [sys.executable, "-m", "ift_jax.commands.main", "prepare", *overrides(folder)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def stores_digest(stores: Path) -> str:
    """Return a hash of the bytes of all parts, by the names of their tasks and splits."""
    digest = hashlib.sha256()
    for part in sorted(stores.glob("*/part-*.arrow")):
        name = part.parent.name.rsplit("-", 1)[0]  # Without the hash, which holds the code.
        digest.update(f"{name}/{part.name}".encode() + hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()[:16]


def measured(seconds: float, before: CpuTime) -> dict[str, float]:
    """Return the figures of a command that has just ended."""
    now = CpuTime.now()
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(now.own - before.own, 2),
        "load_of_others": before.load_of_others(now),
    }


def main() -> None:
    """Print the figures of each command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1600)
    parser.add_argument("--instances", type=int, default=40, help="of each task")
    parser.add_argument("--folder", help="keeps the data and stores; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(args.folder or name)
        if not (folder / "release").exists():
            write_release(folder / "release", args.tasks, args.instances)
        report: dict[str, Any] = {"machine": describe(), "tasks": args.tasks}
        before = CpuTime.now()
        report["prepare"] = measured(prepare(folder), before)
        before = CpuTime.now()
        workdir = Path(tempfile.mkdtemp(dir=name)) / "run"
        seconds = seconds_to_first_step(folder, workdir, overrides(folder))
        report["train"] = measured(seconds, before)
        report["stores"] = stores_digest(folder / "stores")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
