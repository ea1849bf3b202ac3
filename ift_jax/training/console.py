"""What a run says while it runs: a progress bar in a terminal, plain lines elsewhere."""

import datetime
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich import progress
from rich.console import Console as RichConsole


class Console:
    """Lines for the reader, and one line of progress."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        """Writes to `stream` (default: standard output); `quiet` processes write nothing."""
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)
        self._bar: progress.Progress | None = None

    def line(self, *texts: str) -> None:
        """Lines of plain text, above the progress bar if there is one."""
        self._rich.out(*texts, sep="\n")

    def start(self, step: int, n_steps: int) -> None:
        """Opens the progress bar at `step`."""
        self._n_steps, self._first, self._began = n_steps, step, time.perf_counter()
        if self._rich.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("train"),
                progress.BarColumn(bar_width=20),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[text]}"),
                console=self._rich,
            )
            self._task = self._bar.add_task("train", total=n_steps, completed=step, text="")
            self._bar.start()

    def progress(self, record: Mapping[str, Any]) -> None:
        """Shows a metrics record: loss, trained tokens/s, MFU, packing fill, time left."""
        step, speed = record["step"], record["time"]
        seconds_a_step = (time.perf_counter() - self._began) / max(step - self._first, 1)
        left = datetime.timedelta(seconds=round((self._n_steps - step) * seconds_a_step))
        mfu = f" · MFU {speed['mfu']:.0%}" if speed["mfu"] is not None else ""
        skipped = f" · {record['skipped']} steps skipped" if record["skipped"] else ""
        text = (
            f"loss {record['nll']:.3f} · acc {record['accuracy']:.2f} · "
            f"{speed['trained_tokens_per_second']:,.0f} trained tok/s{mfu} · "
            f"fill {record['fill']:.1%} · {left} left{skipped}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        else:
            self.line(f"step {step}/{self._n_steps} · {text}")

    def stop(self) -> None:
        """Closes the progress bar."""
        if self._bar is not None:
            self._bar.stop()
