"""What a run prints: a live display in a terminal, plain lines elsewhere."""

import math
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich import progress
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.text import Text

from ift_jax.errors import counted
from ift_jax.evaluation.score_table import title

# What the evaluated mixtures are called.
SETS = {"eval": "unseen examples", "heldout": "unseen tasks"}
NOT_SHOWN = ("baseline", "stopped")  # Metrics that say nothing of how good an answer is.
PLAIN_WIDTH = 80  # Lines are this long where the output is no terminal, such as a log file.
_WIDE = 120  # A terminal of this width also shows accuracy and fill.
_TREND_MEMORY = 0.8  # Weight of the past in the smoothed loss that a trend is told by.
_LEVEL = 0.0005  # A smaller relative change of the smoothed loss is no trend.


class Console:
    """Prints lines of text, and the progress of the steps below them.

    In a terminal, two lines stay at the bottom: the step with the time spent and left, which moves
    several times a second, and the newest figures. Elsewhere each log step is a line.
    """

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        """Print nothing yet.

        Args:
            stream: Where to print; by default standard output.
            quiet: Print nothing at all, as all processes of a run but the first do.
        """
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)
        self._live: Live | None = None
        self._n_steps = 0
        self._first_step = 0
        self._start_time = time.perf_counter()
        self._smoothed_loss: float | None = None
        self._held_out_loss: float | None = None
        self._record: Mapping[str, Any] | None = None  # The newest, and the arrow beside its loss.
        self._arrow = ""

    @property
    def width(self) -> int:
        """The number of columns to write for."""
        return self._rich.width if self._rich.is_terminal else PLAIN_WIDTH

    def line(self, *texts: str) -> None:
        """Print lines of plain text, above the live display if there is one.

        In a terminal, a line that is too long goes on at a word, indented. In a file it stays one
        line, which `grep` finds whole.
        """
        if self._rich.is_terminal:
            lines = "\n".join(texts).split("\n")
            texts = tuple(part for line in lines for part in _folded(line, self.width))
        self.verbatim(*texts)

    def verbatim(self, *texts: str) -> None:
        """Print what a person may copy, such as a command: no line break is added."""
        self._rich.out(*texts, sep="\n")

    def start(self, step: int, n_steps: int, text: str = "") -> None:
        """Start the progress display.

        Args:
            step: The step that the run starts or resumes at.
            n_steps: The number of steps of the whole run.
            text: What is shown until the first figures are there.
        """
        self._n_steps = n_steps
        self._first_step = step
        self._start_time = time.perf_counter()
        # A console may show several runs, such as stages: nothing is left of the one before.
        self._smoothed_loss = self._held_out_loss = self._record = None
        self._arrow = ""
        if not self._rich.is_terminal:
            return
        self._bar = progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("step {task.completed}/{task.total}"),
            progress.BarColumn(bar_width=None),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}"),
            console=self._rich,
            expand=True,
        )
        self._task = self._bar.add_task("train", total=n_steps, completed=step, left="")
        self._figures = Text(text, no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._figures), console=self._rich, refresh_per_second=4)
        self._live.start()

    def held_out(
        self, step: int, loss: float, preference: Mapping[str, float] | None = None
    ) -> None:
        """Remember the newest held-out loss, and print it.

        Args:
            step: The step that it was computed at.
            loss: The loss; NaN where it is not finite.
            preference: The means over held-out pairs, where the loss is theirs.
        """
        self._held_out_loss = loss
        parts = [f"step {step}/{self._n_steps}", f"held-out loss {loss:.4f}"]
        if preference:
            parts.append(f"accuracy {preference['accuracy']:.1%}")
            parts.append(f"margin {preference['margin']:.4f}")
            parts.append(counted(int(preference["pairs"]), "pair"))
        self.line(" · ".join(parts))
        self._draw_figures()

    def scores(self, step: int, which: str, result: Mapping[str, Any]) -> None:
        """Print the metrics of answers: the means over tasks.

        Args:
            step: The step that they were computed at.
            which: "eval", unseen examples of the trained tasks, or "heldout", unseen tasks.
            result: What `ift_jax.evaluation.evaluate.evaluate` returned.
        """
        n_tasks = len(result["tasks"])
        overall = result["overall"]
        parts = [
            f"{title(metric)} {value:.3f}"
            for metric, value in overall.items()
            if isinstance(value, float) and metric not in NOT_SHOWN
        ]
        of_what = f"{counted(n_tasks, 'task')}, {counted(overall['examples'], 'example')}"
        head = f"step {step}/{self._n_steps} · {SETS[which]} ({of_what})"
        self.line(f"{head}: {', '.join(parts) or 'nothing scored'}")

    def progress(self, record: Mapping[str, Any]) -> None:
        """Show a metrics record.

        Args:
            record: A record of `metrics.jsonl`, with the "time" of `Throughput.read`.
        """
        step = record["step"]
        left = self._left(step)
        self._record, self._arrow = record, self._trend(_shown_loss(record))
        if self._live is None:
            head = f"step {step}/{self._n_steps}"
            self.line(_joined([head, *self._figures_of(record, wide=False), left], self.width))
            return
        self._bar.update(self._task, completed=step, left=left)
        self._draw_figures()

    def _draw_figures(self) -> None:
        """Show the newest record and the newest held-out loss in the live display."""
        if self._live is not None and self._record is not None:
            parts = self._figures_of(self._record, wide=self.width >= _WIDE)
            self._figures.plain = "  " + _joined(parts, self.width - 2)

    def stop(self) -> None:
        """Close the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _left(self, step: int) -> str:
        """The time left, by the mean time of this process's steps."""
        seconds = time.perf_counter() - self._start_time
        per_step = seconds / max(step - self._first_step, 1)
        return f"{_clock((self._n_steps - step) * per_step)} left"

    def _figures_of(self, record: Mapping[str, Any], *, wide: bool) -> list[str]:
        """What a record says, in the order of importance."""
        speed = record["time"]
        loss = _shown_loss(record)
        preference = record.get("preference")
        if math.isfinite(loss):
            parts = [f"loss {loss:.3f} {self._arrow}"]
        else:
            parts = ["no finite loss"]
        if self._held_out_loss is not None:
            parts.append(f"held-out {self._held_out_loss:.3f}")
        if preference and math.isfinite(loss):
            parts.append(f"margin {preference['margin']:.3f}")
            parts.append(f"acc {preference['accuracy']:.2f}")
        elif wide and math.isfinite(loss):
            parts.append(f"acc {record['accuracy']:.2f}")
        parts.append(f"{_compact(speed['trained_tokens_per_second'])} tok/s")
        if speed["mfu"] is not None:
            parts.append(f"MFU {speed['mfu']:.0%}")
        if wide and math.isfinite(record["fill"]):
            parts.append(f"fill {record['fill']:.1%}")
        if record["skipped"]:
            parts.append(f"{record['skipped']} skipped")
        return parts

    def _trend(self, loss: float) -> str:
        """An arrow: whether the loss is below or above the smoothed one of before."""
        before = self._smoothed_loss
        if not math.isfinite(loss):
            return ""
        if before is None:
            self._smoothed_loss = loss
            return "→"
        self._smoothed_loss = _TREND_MEMORY * before + (1 - _TREND_MEMORY) * loss
        change = self._smoothed_loss - before
        if abs(change) < _LEVEL * abs(before):
            return "→"
        return "↓" if change < 0 else "↑"


def _shown_loss(record: Mapping[str, Any]) -> float:
    """The plain loss of the trained tokens or, in a run on pairs, the loss of a pair."""
    loss: float = record["loss" if "preference" in record else "nll"]
    return loss


def _folded(text: str, width: int) -> list[str]:
    """A text as lines of at most `width` columns, unless a word is longer; the first as it is."""
    if len(text) <= width:
        return [text]
    indent = " " * (len(text) - len(text.lstrip()) + 4)
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _joined(parts: list[str], width: int) -> str:
    """The parts with dots between them, or only spaces where they would not fit."""
    text = " · ".join(parts)
    return text if len(text) <= width else " ".join(parts)


def _compact(number: float) -> str:
    """A number in few characters: 808, 12.8k, 1.25M."""
    if number < 10_000:
        return f"{number:.0f}"
    if number < 1_000_000:
        return f"{number / 1000:.1f}k"
    return f"{number / 1_000_000:.2f}M"


def _clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
