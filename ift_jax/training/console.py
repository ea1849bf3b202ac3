"""What a run says while it runs: a progress bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


class Console:
    """Lines for the reader, and one line of progress."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        """Writes to `stream` (default: standard output); `quiet` processes write nothing."""
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)
        self._progress: Progress | None = None
        self._quiet = quiet

    def line(self, text: str = "") -> None:
        """One line of plain text, above the progress bar if there is one."""
        if self._rich.is_terminal:
            self._rich.print(text, markup=False)
        elif not self._quiet:
            self._rich.file.write(text + "\n")
            self._rich.file.flush()

    def start(self, step: int, n_steps: int) -> None:
        """Opens the progress bar at `step`."""
        self._n_steps, self._start = n_steps, (step, time.perf_counter())
        if self._rich.is_terminal:
            self._progress = Progress(
                TextColumn("train"), BarColumn(bar_width=20), MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"), console=self._rich,
            )  # fmt: skip
            self._task = self._progress.add_task("train", total=n_steps, completed=step, text="")
            self._progress.start()

    def progress(self, step: int, record: Mapping[str, Any]) -> None:
        """Shows a metrics record: loss, trained tokens/s, MFU, packing fill, time left."""
        first, began = self._start
        left = (self._n_steps - step) * (time.perf_counter() - began) / max(step - first, 1)
        speed = record["time"]
        mfu = f" · MFU {speed['mfu']:.0%}" if speed["mfu"] is not None else ""
        text = (
            f"loss {record['nll']:.3f} · acc {record['accuracy']:.2f} · "
            f"{speed['trained_tokens_per_second']:,.0f} trained tok/s{mfu} · "
            f"fill {record['fill']:.1%} · {_clock(left)} left"
        )
        if record["skipped"]:
            text += f" · {record['skipped']} steps skipped"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, text=text)
        else:
            self.line(f"step {step}/{self._n_steps} · {text}")

    def stop(self) -> None:
        """Closes the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
