"""Small complete runs, started as a user starts them: `ift train` in a process of its own."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.made_once import SHARED, made_once

REPO = Path(__file__).parents[2]
# The fields of small models, and of their data and format.
SMALL = {
    "decoder": [
        "model.d_model=32",
        "model.n_layers=2",
        "model.n_heads=2",
        "model.n_kv_heads=1",
        "model.head_dim=16",
        "model.d_ff=48",
        "data.max_length=64",
    ],
    "encoder_decoder": [
        "model.d_model=32",
        "model.n_encoder_layers=1",
        "model.n_decoder_layers=1",
        "model.n_heads=2",
        "model.head_dim=16",
        "model.d_ff=48",
        "data.inputs_length=48",
        "data.targets_length=24",
        "format.template=plain",
    ],
}
CONFIG_FILES = {
    "decoder": "configs/jsonl.py",
    "encoder_decoder": "tests/training/jsonl_encoder_decoder.py",
}
# A run of 60 steps with dropout, gradient accumulation, and frequent saves.
SETTINGS = [
    "model.dropout=0.1",
    "tokenizer.train_vocab_size=320",
    "train.steps=60",
    "train.epochs=0.0",
    "train.batch_size=8",
    "train.gradient_accumulation_steps=2",
    "train.log_every=4",
    "train.save_every=5",
    "train.eval_every=20",
    "train.keep_best=1",
    "train.preview_every=25",
    "train.preview_prompts=2",
    "train.peak_tflops=1.0",
    "train.report=False",  # Drawing takes a second, longer than these runs.
    f"train.compile_cache={SHARED / 'compiled'}",
    "evaluation.examples=0",
    "evaluation.max_new_tokens=4",
    "data.window=32",
]
WORDS = "red green blue small large old new cat dog bird house river stone apple table".split()


def write_data(path, n=120):
    """Writes JSON lines of various lengths, whose answers repeat a word of the input."""
    with open(path, "w", encoding="utf-8") as file:
        for i in range(n):
            words = [WORDS[(i * k + k * k) % len(WORDS)] for k in range(2, 4 + i % 7)]
            record = {"inputs": "say the first: " + " ".join(words), "targets": words[0]}
            file.write(json.dumps(record) + "\n")
    return path


def shared_data():
    """The data of all runs that name no other; written once, so its stores are built once."""
    return made_once("data.jsonl", write_data)


def command(
    workdir, architecture="decoder", overrides=(), processes=None, index=0, data=None, stores=SHARED
):
    """The command line of a run, as a list of arguments.

    Args:
        workdir: The run's workdir.
        architecture: A key of `SMALL`.
        overrides: Settings besides `SETTINGS`, such as "train.steps=9".
        processes: The port of the coordinator and the number of processes; None for a single one.
        index: The index of this process.
        data: A file of JSON lines; by default the shared one.
        stores: The folder above the token stores.
    """
    data = data or shared_data()
    settings = [
        *SMALL[architecture],
        *SETTINGS,
        f"data.store_dir={stores / 'stores'}",
        *overrides,
    ]
    arguments = [sys.executable, "-m", "ift_jax.commands.main", "train"]
    arguments += ["--config", f"{CONFIG_FILES[architecture]}:{data}", "--workdir", str(workdir)]
    arguments += [f"--config.{setting}" for setting in settings]
    if processes:
        port, count = processes
        arguments += ["--coordinator", f"127.0.0.1:{port}"]
        arguments += ["--num-processes", str(count), "--process-id", str(index)]
    return arguments


def held(arguments, step, file):
    """The same command, which waits at the log line of a step until a file exists."""
    python, _, _, *rest = arguments
    return [python, "-m", "tests.training.held_run", str(step), str(file), *rest]


def free_port():
    """A port of this machine that nothing listens on, and that no other test is given.

    Systems give connections ports from 32768 on (Linux) or 49152 on (others), so one below stays
    free until the process that it is for listens on it.
    """
    with open(SHARED / "next_port", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        port = int(file.read() or 20_000 + os.getpid() % 8000)
        while True:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.bind(("127.0.0.1", port))
                break
            port += 1
        file.truncate(0)
        file.write(str(port + 1))
        return port


def start(arguments, devices=1):
    """Starts a run from the checkout with this many CPU devices."""
    environment = dict(os.environ, PYTHONPATH=str(REPO), JAX_PLATFORMS="cpu")
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", environment["XLA_FLAGS"])
    environment["XLA_FLAGS"] = flags
    return subprocess.Popen(
        arguments,
        cwd=REPO,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout=240):
    """Waits for a run that must succeed; returns its output."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output[-3000:]
    return output


def records(workdir):
    """The complete lines of `metrics.jsonl`, without the measured times."""
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    parsed = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in record.items() if k != "time"} for record in parsed]


def wait_until(condition, process, timeout=240):
    """Polls until a condition holds; it must hold before the run's process has ended."""
    end = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            assert condition(), process.communicate()[0][-3000:]
            return
        assert time.monotonic() < end
        time.sleep(0.002)


def kill(process):
    """Kills a process, which gets no chance to save."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
