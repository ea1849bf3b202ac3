"""A task of generated lines, and what tests of preparing do with a config of it."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from ift_jax.preparation.prepare import prepare

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = """
    from ift_jax.sources.register import register_rows_task
    import made_helper

    def register(root):
        files = {split: f"{root}/{split}.jsonl" for split in ("train", "validation")}
        register_rows_task("made", files)
"""


def quiet(_):
    pass


def write_lines(path, n, first=0):
    text = "Please add these two numbers: {i} and {i}. Write the sum, nothing else. add {i} and {i}"
    lines = [
        {"inputs": "Friend! " * (i % 6) + text.format(i=i), "targets": str(2 * i)}
        for i in range(first, first + n)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def edit_helper(folder, text):
    """Edits a module that the task's module imports, and forgets both as a new process does."""
    (folder / "modules" / "made_helper.py").write_text(text)
    for name in ("made_tasks", "made_helper"):
        del sys.modules[name]


def changed(config, **kwargs):
    """`data__max_length=3` changes config.data.max_length."""
    for name, value in kwargs.items():
        room, _, field = name.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, room), **{field: value})
        config = dataclasses.replace(config, **{room: value})
    return config


def child(config, code, per_shard=40):
    """Starts another Python process with `config`."""
    script = (
        "from ift_jax.config.schema import *\nfrom ift_jax.preparation import shards\n"
        "from ift_jax.preparation.prepare import prepare\n"
        "from ift_jax.preparation.open_or_prepare import open_or_prepare\n"
        "import functools, os, sys\n"
        "log = functools.partial(print, flush=True)\n"
        f"shards.EXAMPLES_PER_SHARD = {per_shard}\nconfig = {config!r}\n{textwrap.dedent(code)}\n"
    )
    path = os.pathsep.join([str(REPOSITORY), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def store_of(config, which="train"):
    return prepare(config, which, log=quiet).mixture.stores[0]
