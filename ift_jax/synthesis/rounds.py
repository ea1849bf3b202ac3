"""Rounds of synthesis, until a data set has as many examples as were asked for.

A round is a function of (recipe, number, what the rounds before it kept, the model's answers).
The model's answers are in the journal, so rounds that were done before an interruption are done
again without the model, and the files of examples and of rejections continue where they ended.
"""

import collections
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ift_jax.errors import UserError, counted
from ift_jax.evaluation.answer_settings import check_same_settings
from ift_jax.io.files import append_json_lines, json_bytes, write
from ift_jax.io.json_reader import parse_json, read_json_object
from ift_jax.io.stop_signals import Stopped, never
from ift_jax.synthesis.answers_so_far import remove_answers_so_far
from ift_jax.synthesis.generator import Completer, Interrupted
from ift_jax.synthesis.journal import JournaledCompleter

MOST_IDLE_ROUNDS = 20  # Rounds in a row without an example before synthesis gives up.
_REMEDY = "name another --output, or remove it and the folder beside it"


class Rejection(NamedTuple):
    """A text that was not kept."""

    stage: str
    reason: str
    text: str


class Round:
    """What one round made.

    Attributes:
        rows: The new examples.
        made: How many texts a model wrote, by stage.
        kept: How many of them were kept, by stage.
        rejected: The others.
    """

    def __init__(self) -> None:
        """Begin without anything."""
        self.rows: list[dict[str, Any]] = []
        self.made: collections.Counter[str] = collections.Counter()
        self.kept: collections.Counter[str] = collections.Counter()
        self.rejected: list[Rejection] = []

    def keep(self, stage: str) -> None:
        """Count a text that is kept."""
        self.made[stage] += 1
        self.kept[stage] += 1

    def reject(self, stage: str, reason: str, text: str) -> None:
        """Count a text that is not kept."""
        self.made[stage] += 1
        self.rejected.append(Rejection(stage, reason, text))


class Recipe(Protocol):
    """A way to make examples."""

    def round(self, number: int, completer: Completer) -> Round:
        """Make the examples of a round; rounds come in order, from 0."""
        ...


class Tally:
    """What all rounds made, kept, and rejected, by stage and reason."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.n_rounds = 0
        self.n_examples = 0
        self._stages: dict[str, dict[str, Any]] = {}

    def add(self, of_round: Round) -> None:
        """Add a round."""
        self.n_rounds += 1
        self.n_examples += len(of_round.rows)
        for stage, n_made in of_round.made.items():
            empty = {"made": 0, "kept": 0, "rejected": collections.Counter()}
            counts = self._stages.setdefault(stage, empty)
            counts["made"] += n_made
            counts["kept"] += of_round.kept[stage]
            reasons = (item.reason for item in of_round.rejected if item.stage == stage)
            counts["rejected"].update(reasons)

    def fields(self) -> dict[str, Any]:
        """Return all counts, in JSON's types."""
        stages = {
            stage: {**counts, "rejected": dict(sorted(counts["rejected"].items()))}
            for stage, counts in self._stages.items()
        }
        return {"rounds": self.n_rounds, "examples": self.n_examples, "stages": stages}

    def lines(self) -> list[str]:
        """Return the counts as lines to print, the commonest reason first."""
        lines = []
        for stage, counts in self._stages.items():
            lines.append(f"{stage}: {counts['made']:,} written, {counts['kept']:,} kept")
            for reason, n in counts["rejected"].most_common():
                lines.append(f"{n:>9,}  {reason}")
        return lines


class Outputs:
    """The file of examples, and a folder beside it with how it was made.

    The folder has another ending than a data file, so that `ift train --data` of the folder that
    they are both in reads the examples alone.

    Attributes:
        path: The file of examples.
        folder: "<path>.synthesis", with journal.jsonl, settings.json, rejected.jsonl, counts.json.
    """

    def __init__(self, path: str):
        """Open nothing yet."""
        self.path = path
        self.folder = f"{path}.synthesis"

    def open_journal(
        self, completer: Completer, settings: Mapping[str, Any], stopped: Stopped = never
    ) -> JournaledCompleter:
        """Open the journal, new or to be continued.

        Args:
            completer: The model.
            settings: All else that determines the examples, in JSON's types.
            stopped: Whether to ask the model nothing more.

        Raises:
            UserError: The output was begun with other settings, or is none of synthesis.
        """
        now = {**settings, **completer.settings()}
        file = Path(self.folder, "settings.json")
        if file.exists():
            check_same_settings(self.path, read_json_object(file), now, _REMEDY)
        else:
            self.check_continuable()
            write(file, json_bytes(now))
        return JournaledCompleter(completer, os.path.join(self.folder, "journal.jsonl"), stopped)

    def check_continuable(self) -> None:
        """Raise a UserError if the file of examples is there and was not begun by synthesis."""
        begun = os.path.exists(os.path.join(self.folder, "settings.json"))
        if not begun and os.path.exists(self.path) and os.path.getsize(self.path):
            raise UserError(
                f"--output {self.path}: exists, and there is no {self.folder} to continue it; "
                "name another --output"
            )

    def rows(self) -> "_ContinuedLines":
        """Return the file of examples."""
        return _ContinuedLines(self.path)

    def rejected(self) -> "_ContinuedLines":
        """Return the file of rejections."""
        return _ContinuedLines(os.path.join(self.folder, "rejected.jsonl"))

    def write_counts(self, tally: Tally) -> None:
        """Write the counts so far."""
        write(Path(self.folder, "counts.json"), json_bytes(tally.fields()))


class _ContinuedLines:
    """A file of JSON lines that are made again from its beginning, and continued after its end."""

    def __init__(self, path: str):
        """Read what is there, and remove a line that a kill cut off."""
        self._path = path
        self._there: collections.deque[Any] = collections.deque()
        self._number = 0
        if os.path.exists(path):
            end = 0
            with open(path, "rb+") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    self._there.append(parse_json(line, f"{path}:{number}"))
                    end += len(line)
                file.truncate(end)

    def __len__(self) -> int:
        """The lines that were there and are not made again yet."""
        return len(self._there)

    def append(self, values: Sequence[Any]) -> None:
        """Append lines but for those that are there; raise a UserError if those differ."""
        new = list(values)
        while new and self._there:
            self._number += 1
            if self._there.popleft() != new.pop(0):
                raise UserError(
                    f"{self._path}:{self._number}: is not the line that the journal beside it "
                    f"gives; {_REMEDY}"
                )
        if new:
            append_json_lines(self._path, new)
            self._number += len(new)


def synthesize(
    recipe: Recipe,
    completer: JournaledCompleter,
    outputs: Outputs,
    *,
    target: int,
    max_rounds: int,
    log: Callable[[str], None],
) -> Tally:
    """Make rounds of examples until there are enough.

    Args:
        recipe: How a round is made.
        completer: The model, with its journal.
        outputs: Where the examples go.
        target: The least number of examples; the last round is kept as a whole, so that a larger
            target continues the same data set.
        max_rounds: The most rounds.
        log: Is told about each round that needed the model.

    Returns:
        The counts; fewer examples than the target if a signal stopped it.

    Raises:
        UserError: The model keeps writing no example that is kept, or `max_rounds` are not enough.
    """
    tally = Tally()
    rows, rejected = outputs.rows(), outputs.rejected()
    idle = 0
    while tally.n_examples < target or len(rows) or len(rejected):
        if tally.n_rounds == max_rounds or idle == MOST_IDLE_ROUNDS:
            outputs.write_counts(tally)
            raise _gave_up(tally, idle, target, outputs)
        n_asked = completer.n_asked
        try:
            of_round = recipe.round(tally.n_rounds, completer)
        except Interrupted:
            outputs.write_counts(tally)
            return tally
        # Rejections first: a kill between the two leaves no example without its round's counts.
        rejected.append([{"round": tally.n_rounds, **item._asdict()} for item in of_round.rejected])
        rows.append(of_round.rows)
        tally.add(of_round)
        idle = 0 if of_round.rows else idle + 1
        if completer.n_asked > n_asked:
            outputs.write_counts(tally)
            kept = sum(of_round.kept.values())
            log(
                f"round {tally.n_rounds:,}: {kept:,} of {sum(of_round.made.values()):,} texts kept;"
                f" {counted(tally.n_examples, 'example')}"
            )
    remove_answers_so_far(outputs.folder)  # A kill may have left it behind a journal's last line.
    outputs.write_counts(tally)
    return tally


def _gave_up(tally: Tally, idle: int, target: int, outputs: Outputs) -> UserError:
    why = f"{idle} rounds in a row gave no example" if idle == MOST_IDLE_ROUNDS else "--max-rounds"
    return UserError(
        f"{outputs.path}: {why}: {tally.n_examples:,} of {target:,} examples after "
        f"{counted(tally.n_rounds, 'round')}; {outputs.folder}/counts.json has the reasons; "
        "expected another model, a higher --temperature, or a smaller --target"
    )
