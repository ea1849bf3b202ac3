"""Small whole runs, as a user starts them: `ift train` in a process of its own."""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).parents[2]
SHARED = Path(os.environ["IFT_JAX_TESTS"])  # See conftest.py.
SMALL = {
    "decoder": ["model.d_model=32", "model.n_layers=2", "model.n_heads=2", "model.n_kv_heads=1",
                "model.head_dim=16", "model.d_ff=48", "data.max_length=64"],
    "encoder_decoder": ["model.d_model=32", "model.n_encoder_layers=1", "model.n_decoder_layers=1",
                        "model.n_heads=2", "model.head_dim=16", "model.d_ff=48",
                        "data.inputs_length=48", "data.targets_length=24",
                        "format.template=plain"],
}  # fmt: skip
WORDS = "red green blue small large old new cat dog bird house river stone apple table".split()


def write_data(path, n=120):
    """JSON lines whose answers repeat a word of the input, lengths varying."""
    with open(path, "w", encoding="utf-8") as file:
        for i in range(n):
            words = [WORDS[(i * k + k * k) % len(WORDS)] for k in range(2, 4 + i % 7)]
            record = {"inputs": "say the first: " + " ".join(words), "targets": words[0]}
            file.write(json.dumps(record) + "\n")
    return path


def shared_data():
    """The data of `command`, written once: then its stores are made once."""
    path = SHARED / "data.jsonl"
    with open(SHARED / "data.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return path if path.exists() else write_data(path)


def command(
    workdir, architecture="decoder", overrides=(), processes=None, index=0, data=None, stores=SHARED
):
    """The argument list of a run of 60 steps with dropout, accumulation and frequent saves.

    Of the data that all tests share, or other data with stores of its own.
    """
    data = data or shared_data()
    settings = [
        *SMALL[architecture], "model.dropout=0.1", "tokenizer.train_vocab_size=320",
        "train.steps=60", "train.epochs=0.0", "train.batch_size=8",
        "train.gradient_accumulation_steps=2",
        "train.log_every=4", "train.save_every=5", "train.eval_every=20", "train.keep_best=1",
        "train.preview_every=25", "train.preview_prompts=2", "train.peak_tflops=1.0",
        "evaluation.examples=0", "evaluation.max_new_tokens=4", "data.window=32",
        f"data.store_dir={stores / 'stores'}", f"train.compile_cache={SHARED / 'compiled'}",
        *overrides,
    ]  # fmt: skip
    t5 = architecture == "encoder_decoder"
    config = "tests/training/jsonl_t5.py" if t5 else "configs/jsonl.py"
    arguments = [sys.executable, "-m", "ift_jax.commands.main", "train",
                 "--config", f"{config}:{data}", "--workdir", str(workdir),
                 *(f"--config.{setting}" for setting in settings)]  # fmt: skip
    if processes:
        port, count = processes
        arguments += [
            "--coordinator",
            f"127.0.0.1:{port}",
            "--num-processes",
            str(count),
            "--process-id",
            str(index),
        ]
    return arguments


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
    """Waits; returns the output of a run that must have ended well."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output[-3000:]
    return output


def records(workdir):
    """The whole lines of `metrics.jsonl`, without what measures time."""
    path = Path(workdir) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    parsed = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in record.items() if k != "time"} for record in parsed]


def wait_until(condition, process, timeout=240):
    """Polls often; a run that ends first is an error unless the condition holds by then."""
    end = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            assert condition(), process.communicate()[0][-3000:]
            return
        assert time.monotonic() < end
        time.sleep(0.002)


def kill(process):
    """SIGKILL, from outside."""
    process.send_signal(signal.SIGKILL)
    process.communicate()
