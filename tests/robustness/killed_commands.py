"""The commands that are killed: what they are given, and what they must leave in the end.

Each has a folder of its own for every trial: what is there before, and `out`, in which it writes.
The folder `reference` was made in the same way, without a kill.
"""

import abc
import dataclasses
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ift_jax.config.schema import Config
from ift_jax.models import build_model
from tests import small_models
from tests.robustness.same_files import (
    assert_same_arrays,
    assert_same_files,
    assert_same_names,
    check_run,
    check_stores,
    copy_folder,
    files_of,
    json_of,
)
from tests.training import runs

CONFIG = Path(__file__).parents[2] / "configs" / "jsonl.py"
GRACE = 0.5  # Seconds after its first file in which a command may not handle signals yet.
_SETTINGS = [
    *runs.SMALL["decoder"],
    "tokenizer.train_vocab_size=320",
    "data.variants=2",
    "data.window=32",
    "evaluation.examples=8",
    "evaluation.batch_size=4",
    "evaluation.max_new_tokens=4",
    "train.epochs=0.0",
    "train.steps=30",
    "model.dropout=0.1",
    "train.batch_size=4",
    "train.gradient_accumulation_steps=2",
    "train.log_every=3",
    "train.save_every=4",
    "train.eval_every=10",
    "train.preview_every=10",
    "train.preview_prompts=2",
    "train.max_to_keep=2",
    "train.keep_best=1",
    "train.peak_tflops=1.0",
]


class Command(abc.ABC):
    """An `ift` command that is killed.

    Attributes:
        name: Its name.
        share: Its share of all trials.
    """

    name: str
    share: int

    def __init__(self, scratch: Path) -> None:
        """Use the folders of the other commands' references in `scratch`."""
        self.scratch = scratch

    @property
    def reference(self) -> Path:
        """The folder of the run that is not killed."""
        return self.scratch / self.name / "reference"

    @property
    def compiled(self) -> Path:
        """The folder of the programs that the reference compiled."""
        return self.scratch / self.name / "compiled"

    def give(self, folder: Path, trial: int) -> None:
        """Make a trial's folder, with what the command reads there."""
        (folder / "out").mkdir(parents=True)
        copy_folder(self.compiled, folder / "compiled")

    def words(self, folder: Path) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "ift_jax.commands.main", *self.arguments(folder)]

    @abc.abstractmethod
    def arguments(self, folder: Path) -> list[str]:
        """Return the words after `ift`."""

    @abc.abstractmethod
    def is_complete(self, folder: Path) -> bool:
        """Whether the work is done, so that the command need not be called again."""

    @abc.abstractmethod
    def check_between(self, folder: Path) -> None:
        """Check after a kill that what has its final name is whole."""

    @abc.abstractmethod
    def check(self, folder: Path) -> None:
        """Check after the last run that everything is as in the reference."""

    @abc.abstractmethod
    def phase(self, folder: Path) -> str:
        """Return what the command was doing when it was killed, by the files that it left."""

    def stop_status(self, number: int) -> int:
        """Return the exit status after SIGTERM or SIGINT in the middle of the work."""
        return 130 if number == signal.SIGINT else -number

    def obeys_stops(self, wrote: float | None, is_complete: bool) -> bool:
        """Whether such a signal must have found the command in the middle of its work.

        Args:
            wrote: Seconds from its first file to the signal; None if it had written none.
            is_complete: Whether the work is done.
        """
        return False


class Prepare(Command):
    """Trains a tokenizer and builds stores of four tasks, of which each has two variants."""

    name = "prepare"
    share = 4

    def arguments(self, folder: Path) -> list[str]:
        data = self.scratch / "data"
        # Every second trial builds the stores in worker processes.
        processes = 2 if folder.name.endswith(tuple("13579")) else 0
        flags = [
            *_config_flags(data, folder / "out" / "stores"),
            f"--config.data.processes={processes}",
        ]
        return ["prepare", *flags]

    def is_complete(self, folder: Path) -> bool:
        return len(list(folder.glob("out/stores/requests/*.json"))) == 2

    def check_between(self, folder: Path) -> None:
        for store in self._stores():
            if (folder / "out" / store).exists():
                assert_same_files(folder, self.reference, files_of(self.reference, f"out/{store}"))

    def _stores(self) -> list[str]:
        return [
            f"stores/{path.name}"
            for path in (self.reference / "out" / "stores").iterdir()
            if "-train-" in path.name or "-validation-" in path.name
        ]

    def check(self, folder: Path) -> None:
        check_stores(folder / "out" / "stores", self.reference / "out" / "stores")

    def phase(self, folder: Path) -> str:
        stores = folder / "out" / "stores"
        if self.is_complete(folder):
            return "done"
        if not list(stores.glob("tokenizers/*/*.sha256")):
            return "before the tokenizer is made"
        if list(stores.glob("*.partial")):
            return "making parts"
        return "between two steps"


class Train(Command):
    """Trains with dropout, accumulation, frequent saves, held-out losses, previews, scores."""

    name = "train"
    share = 7

    def give(self, folder: Path, trial: int) -> None:
        super().give(folder, trial)
        copy_folder(self.scratch / "prepare" / "reference" / "out" / "stores", folder / "stores")
        if trial % 4 == 0:  # These compile the train step anew.
            for path in folder.glob("compiled/jit_train_step-*"):
                path.unlink()

    def arguments(self, folder: Path) -> list[str]:
        flags = _config_flags(self.scratch / "data", folder / "stores")
        return ["train", *flags, "--workdir", str(folder / "out" / "run")]

    def is_complete(self, folder: Path) -> bool:
        record = folder / "out" / "run" / "run.json"
        return record.exists() and json_of(record)["finished_at"] is not None

    def check_between(self, folder: Path) -> None:
        for path in folder.glob("out/run/*.json"):
            json_of(path)

    def check(self, folder: Path) -> None:
        check_run(folder, self.reference)

    def phase(self, folder: Path) -> str:
        workdir = folder / "out" / "run"
        steps = files_of(workdir, "checkpoints")
        if self.is_complete(folder):
            return "done"
        if not (workdir / "metrics.jsonl").exists():
            return "before the first step"
        if any("tmp" in name for name in steps):
            return "a save in flight"
        if (workdir / "checkpoints" / "30").exists():
            return "after the last save"
        return "training"

    def stop_status(self, number: int) -> int:
        return 0

    def obeys_stops(self, wrote: float | None, is_complete: bool) -> bool:
        # `run.json` is the first file, and signals are handled before it is written.
        return wrote is not None and not is_complete


class Export(Command):
    """Writes a model of 12 million parameters as a Hugging Face folder of several files."""

    name = "export"
    share = 4

    def arguments(self, folder: Path) -> list[str]:
        workdir = str(large_workdir(self.scratch))
        output = str(folder / "out" / "hf")
        return ["export", "--workdir", workdir, "--output", output, "--shard-size", "0.01"]

    def is_complete(self, folder: Path) -> bool:
        return (folder / "out" / "hf").exists()

    def check_between(self, folder: Path) -> None:
        if self.is_complete(folder):
            assert_same_files(folder, self.reference, files_of(self.reference, "out/hf"))

    def check(self, folder: Path) -> None:
        assert_same_names(folder / "out", self.reference / "out")
        assert_same_files(folder, self.reference, files_of(self.reference, "out"))

    def phase(self, folder: Path) -> str:
        return _phase_of_folder(folder / "out", "hf")


class Import(Command):
    """Makes a workdir of that folder."""

    name = "import"
    share = 5

    def arguments(self, folder: Path) -> list[str]:
        source = self.scratch / "export" / "reference" / "out" / "hf"
        return ["import", str(source), "--workdir", str(folder / "out" / "run")]

    def is_complete(self, folder: Path) -> bool:
        return (folder / "out" / "run").exists()

    def check_between(self, folder: Path) -> None:
        if self.is_complete(folder):
            self.check(folder)

    def check(self, folder: Path) -> None:
        arrays_in = "run/checkpoints/0/"  # Orbax's names of files in it are random.
        assert_same_names(folder / "out", self.reference / "out", ignored=(arrays_in,))
        names = files_of(self.reference, "out")
        same = [name for name in names if not name.startswith(f"out/{arrays_in}")]
        assert_same_files(folder, self.reference, same)
        assert_same_arrays(folder / "out" / "run", self.reference / "out" / "run")

    def phase(self, folder: Path) -> str:
        return _phase_of_folder(folder / "out", "run")


class Generate(Command):
    """Answers 160 prompts into a file, by batches of four."""

    name = "generate"
    share = 5
    n_prompts = 160

    def arguments(self, folder: Path) -> list[str]:
        words = ["generate", "--workdir", str(small_workdir(self.scratch))]
        words += ["--prompts", str(self.scratch / "prompts.jsonl")]
        words += ["--output", str(folder / "out" / "answers.jsonl")]
        return [*words, "--batch-size", "4", "--max-new-tokens", "12", "--temperature", "0.7"]

    def _answers(self, folder: Path) -> list[bytes]:
        path = folder / "out" / "answers.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        return [line for line in lines if line.endswith(b"\n")]

    def is_complete(self, folder: Path) -> bool:
        return len(self._answers(folder)) == self.n_prompts

    def check_between(self, folder: Path) -> None:
        answers = self._answers(folder)
        assert answers == self._answers(self.reference)[: len(answers)]

    def check(self, folder: Path) -> None:
        assert_same_names(folder / "out", self.reference / "out")
        assert_same_files(folder, self.reference, files_of(self.reference, "out"))

    def phase(self, folder: Path) -> str:
        n_answers = len(self._answers(folder))
        if n_answers == self.n_prompts:
            return "done"
        return "some answers written" if n_answers else "before the first answers"

    def stop_status(self, number: int) -> int:
        return 128 + number

    def obeys_stops(self, wrote: float | None, is_complete: bool) -> bool:
        return wrote is not None and wrote > GRACE and not is_complete


class Eval(Command):
    """Scores the run of the reference of `train`."""

    name = "eval"
    share = 2

    def arguments(self, folder: Path) -> list[str]:
        run = self.scratch / "train" / "reference" / "out" / "run"
        output = str(folder / "out" / "scores.json")
        return ["eval", "--workdir", str(run), "--output", output]

    def is_complete(self, folder: Path) -> bool:
        path = folder / "out" / "scores.json"
        return path.exists() and json_of(path)["complete"]

    def check_between(self, folder: Path) -> None:
        self.is_complete(folder)

    def check(self, folder: Path) -> None:
        assert_same_names(folder / "out", self.reference / "out")
        assert_same_files(folder, self.reference, files_of(self.reference, "out"))

    def phase(self, folder: Path) -> str:
        return "done" if self.is_complete(folder) else "before its file"

    def stop_status(self, number: int) -> int:
        return 128 + number


# In an order in which each finds the references that it reads.
COMMANDS = (Prepare, Train, Export, Import, Generate, Eval)
READS = {"train": ("prepare",), "import": ("export",), "eval": ("prepare", "train")}


def with_references(names: Sequence[str]) -> list[type[Command]]:
    """Return the commands of these names, and those whose references they read."""
    needed = {other for name in names for other in (name, *READS.get(name, ()))}
    return [command for command in COMMANDS if command.name in needed]


def write_inputs(scratch: Path) -> None:
    """Write what all commands read: rows, prompts, and two models with random weights."""
    (scratch / "data").mkdir()
    for name in ("first", "second", "third", "fourth"):
        runs.write_data(scratch / "data" / f"{name}.jsonl", n=400)
    runs.write_data(scratch / "prompts.jsonl", n=Generate.n_prompts)
    small_models.write_workdir(small_workdir(scratch))
    model = dataclasses.replace(
        small_models.CONFIG.model, d_model=512, n_layers=6, n_heads=8, head_dim=64, d_ff=1024
    )
    large: Config = dataclasses.replace(small_models.CONFIG, model=model)
    params = small_models.random_params(build_model(model))
    small_models.write_workdir(large_workdir(scratch), large, params)


def small_workdir(scratch: Path) -> Path:
    """The workdir of a model whose answers take little time."""
    return scratch / "small"


def large_workdir(scratch: Path) -> Path:
    """The workdir of a model whose files take some time to be written."""
    return scratch / "large"


def _config_flags(data: Path, stores: Path) -> list[str]:
    settings = [f"--config.{setting}" for setting in (*_SETTINGS, f"data.store_dir={stores}")]
    return ["--config", f"{CONFIG}:{data}", *settings]


def _phase_of_folder(out: Path, name: str) -> str:
    """Return how far a command was that makes a folder under a temporary name."""
    if (out / name).exists():
        return "done"
    temporary = list(out.glob(f".{name}.*.tmp"))
    if not temporary:
        return "before its folder is made"
    is_empty = not any(path.is_file() for path in temporary[0].rglob("*"))
    return "reading the model" if is_empty else "writing"
