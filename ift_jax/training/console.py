"""What a run prints: a progress bar in a terminal, plain lines elsewhere."""

import datetime
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich import progress
from rich.console import Console as RichConsole


class Console:
    """Prints lines of text, and the progress of the steps below them."""

    def __init__(self, stream: TextIO | None = None, quiet: bool = False):
        """Print nothing yet.

        Args:
            stream: Where to print; by default standard output.
            quiet: Print nothing at all, as all processes of a run but the first do.
        """
        self._rich = RichConsole(file=stream or sys.stdout, quiet=quiet, highlight=False)
        self._bar: progress.Progress | None = None

    def line(self, *texts: str) -> None:
        """Print lines of plain text, above the progress bar if there is one."""
        self._rich.out(*texts, sep="\n")

    def start(self, step: int, n_steps: int) -> None:
        """Start the progress display at `step`."""
        self._n_steps = n_steps
        self._first_step = step
        self._start_time = time.perf_counter()
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
        """Show a metrics record: loss, trained tokens per second, MFU, packing fill, time left.

        Args:
            record: A record of `metrics.jsonl`, with the "time" of `Throughput.read`.
        """
        step = record["step"]
        speed = record["time"]
        seconds_per_step = (time.perf_counter() - self._start_time) / max(
            step - self._first_step, 1
        )
        seconds_left = round((self._n_steps - step) * seconds_per_step)
        if math.isfinite(record["nll"]):
            parts = [f"loss {record['nll']:.3f}", f"acc {record['accuracy']:.2f}"]
        else:
            parts = ["no finite loss since the last line"]
        parts.append(f"{speed['trained_tokens_per_second']:,.0f} trained tok/s")
        if speed["mfu"] is not None:
            parts.append(f"MFU {speed['mfu']:.0%}")
        if math.isfinite(record["fill"]):
            parts.append(f"fill {record['fill']:.1%}")
        parts.append(f"{datetime.timedelta(seconds=seconds_left)} left")
        if record["skipped"]:
            parts.append(f"{record['skipped']} steps skipped")
        text = " · ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=text)
        else:
            self.line(f"step {step}/{self._n_steps} · {text}")

    def stop(self) -> None:
        """Close the progress bar."""
        if self._bar is not None:
            self._bar.stop()
