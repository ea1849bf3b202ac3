"""Command lines with mistakes: each ends with status 2 and one line.

Nothing that they name exists, so no command begins its work.
"""

import contextlib
import io
import os
import random
from pathlib import Path
from typing import Any

from tests.robustness.group import Case, Group

# WORK stands for a folder that has nothing in it.
_LINES = (
    "train --config WORK/config.py --workdir WORK/run",
    "train --config WORK/config.py:small --workdir WORK/run --config.train.steps=x",
    "prepare --config WORK/config.py",
    "import WORK/model --workdir WORK/run",
    "import WORK/model.gguf --workdir WORK/run",
    "export --workdir WORK/run --output WORK/out --dtype bfloat16",
    "generate --workdir WORK/run --prompt Hello --max-new-tokens 5",
    "generate --workdir WORK/run --prompts WORK/prompts.jsonl --output WORK/answers.jsonl",
    "chat --workdir WORK/run",
    "eval --workdir WORK/run --batch-size 4",
    "train --help",
    "--version",
    "plan --config WORK/config.py --topology v5e-8",
    "inspect --config WORK/config.py",
)
_WORDS = (
    "", "-", "--", "-x", "--x", "--help-config-x", "--workdir", "--workdir=", "--config", "x", "0",
    "-1", "nan", "inf", "1e400", "10" * 12, "--config.train.steps", "--config.train.steps=",
    "--config.train.steps=-1", "--config.trian.steps=1", "--config.", "--config.=1", "--step=x",
    "--config.data.modules=(1,)", "--temperature=-1", "--batch-size=0", "--dtype=int3", "a b",
    "--prompt=\ud800", "--output=/dev/full/x", "\u00e9", "--step", "-1", "--top-p=2", "WORK", 
    "--topology=v6e-7",
    "--config.model.init_from=WORK/none", "--debugx", "trian", "--workdir=WORK\0x",
)  # fmt: skip


class Arguments(Group):
    """`ift` is called with a command line in which words are lost, doubled, swapped or added."""

    names_file = False

    def make(self, rng: random.Random, folder: Path) -> Case:
        words = rng.choice(_LINES).split()
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            place = rng.randrange(len(words) + 1)
            kind = rng.random()
            if kind < 0.55 or not words:
                words.insert(place, rng.choice(_WORDS))
            elif kind < 0.75:
                words.pop(min(place, len(words) - 1))
            elif kind < 0.9:
                words[min(place, len(words) - 1)] = rng.choice(_WORDS)
            else:
                words.insert(place, words[min(place, len(words) - 1)])
        argv = [word.replace("WORK", str(folder / "work")) for word in words]
        return Case(f"{words}", folder, argv)

    def read(self, case: Case) -> Any:
        from ift_jax.commands.main import main
        from ift_jax.errors import UserError

        out, err = io.StringIO(), io.StringIO()
        before = os.getcwd()
        os.chdir(case.path)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    status = main(case.extra)
                except SystemExit as end:  # argparse's, for --help and --version.
                    status = end.code
        finally:
            os.chdir(before)
        lines = [line for line in err.getvalue().splitlines() if line.startswith("error: ")]
        if status == 2 and len(lines) == 1 and "Traceback" not in err.getvalue():
            raise UserError(lines[0])
        if status != 0:
            raise RuntimeError(f"exit status {status}: {err.getvalue()[-1000:]}")
        return out.getvalue()

    def complaint(self, case: Case, value: Any) -> str:
        asked = {"--help", "-h", "--version"} & set(case.extra)
        # `ift inspect` alone lists what can be inspected.
        return "" if asked or case.extra == ["inspect"] else f"exit status 0: {value[-300:]}"


GROUP = Arguments()
