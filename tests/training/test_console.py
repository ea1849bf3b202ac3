"""What a run shows, in terminals of 80 and 200 columns and in a file."""

import io
import re
import time

import pytest
from rich.console import Console as RichConsole

from ift_jax.training import console as console_module
from ift_jax.training.console import Console


def record(step=100, nll=1.754, mfu=0.36, **fields):
    speed = {"trained_tokens_per_second": 12_812.0, "mfu": mfu}
    return {
        "step": step,
        "nll": nll,
        "accuracy": 0.5,
        "fill": 0.936,
        "skipped": 0,
        "time": speed,
        **fields,
    }


@pytest.fixture
def terminal(monkeypatch):
    """Makes a Console that writes to a terminal of a width; returns it and what it writes."""

    def make(width):
        stream = io.StringIO()
        monkeypatch.setattr(
            console_module,
            "RichConsole",
            lambda **options: RichConsole(
                file=stream, force_terminal=True, width=width, highlight=False
            ),
        )
        return Console(), stream

    return make


def screen(stream):
    """The lines that were written, without the terminal's control sequences."""
    text = re.sub(r"\r|\x1b\[1A", "\n", stream.getvalue())  # The display is drawn over itself.
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


def test_a_second_run_on_the_console_has_its_own_trend_and_held_out_loss():
    stream = io.StringIO()
    console = Console(stream)
    console.start(0, 20)
    console.held_out(0, 1.9)
    console.progress(record(step=20, nll=1.0))
    console.start(0, 20)
    console.progress(record(step=10, nll=5.0))
    console.progress(record(step=20, nll=4.0))
    first, second = stream.getvalue().splitlines()[-2:]
    assert "loss 5.000 →" in first and "held-out" not in first
    assert "loss 4.000 ↓" in second


def test_a_file_has_a_line_for_each_log_step_that_fits_80_columns():
    stream = io.StringIO()
    console = Console(stream)
    console.start(0, 60_000)
    console.held_out(10_000, 1.9)
    console.progress(record(step=10_000))
    console.progress(record(step=20_000, nll=1.5))
    held_out, first, second = stream.getvalue().splitlines()
    assert held_out == "step 10000/60000 · held-out loss 1.9000"
    assert re.fullmatch(
        r"step 10000/60000 loss 1.754 → held-out 1.900 12.8k tok/s MFU 36% \d:\d\d:\d\d left", first
    )
    assert "loss 1.500 ↓" in second
    assert max(map(len, (held_out, first, second))) <= 80


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_shows_every_figure(terminal, width):
    console, stream = terminal(width)
    console.start(0, 600, "compiling the train step")
    console.held_out(90, 1.9)
    console.progress(record())
    console.stop()
    lines = screen(stream)
    text = "\n".join(lines)
    for figure in ("step 100/600", "loss 1.754 →", "held-out 1.900", "12.8k tok/s", "MFU 36%"):
        assert figure in text, figure
    assert re.search(r"\d:\d\d:\d\d left", text)
    assert ("acc 0.50" in text) == (width == 200)
    assert max(map(len, lines)) <= width


def test_something_moves_each_second_while_nothing_is_reported(terminal):
    console, stream = terminal(80)
    console.start(0, 600, "compiling the train step")

    def frames():
        return {line for line in screen(stream) if "step 0/600" in line}

    # Four times a second; a busy machine may draw some of them late.
    end = time.monotonic() + 30
    while len(frames()) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    console.stop()
    assert len(frames()) >= 3
    assert "compiling the train step" in "\n".join(screen(stream))


def test_the_trend_is_that_of_the_smoothed_loss():
    stream = io.StringIO()
    console = Console(stream)
    console.start(0, 10)
    for step, nll in enumerate([2.0, 1.0, 2.5, 5.0, 2.3], start=1):
        console.progress(record(step=step, nll=nll))
    arrows = re.findall("[→↓↑]", stream.getvalue())
    # Smoothed with weight 0.8 on the past: 2, 1.8, 1.94, 2.552, 2.5016.
    assert arrows == ["→", "↓", "↑", "↑", "↓"]


def test_an_interval_without_a_finite_loss_says_so():
    stream = io.StringIO()
    console = Console(stream)
    console.start(0, 600)
    nan = float("nan")
    console.progress(record(nll=nan, accuracy=nan, fill=nan, mfu=None, skipped=10))
    assert "step 100/600 · no finite loss · 12.8k tok/s · 10 skipped" in stream.getvalue()


def test_a_quiet_console_prints_nothing(capsys):
    console = Console(quiet=True)
    console.start(0, 10)
    console.line("x")
    console.progress(record(step=1))
    console.stop()
    assert capsys.readouterr().out == ""


def test_a_long_line_of_a_terminal_goes_on_at_a_word(terminal):
    text = "  data_rows: " + "a few words " * 20 + "end"
    command = "  ift chat --workdir " + "long/" * 20
    console, stream = terminal(80)
    console.line(f"{text}\nshort")
    console.verbatim(command)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert all(line.startswith("      ") for line in lines[1:-2])
    assert " ".join(lines[:-2]).split() == text.split()
    assert lines[-2:] == ["short", command]


def test_a_long_line_of_a_file_stays_whole():
    text = "a few words " * 20 + "end"
    file = io.StringIO()
    Console(file).line(text)
    assert file.getvalue() == text + "\n"


def test_the_newest_held_out_loss_replaces_the_one_that_was_shown(terminal):
    console, stream = terminal(80)
    console.start(0, 600, "compiling the train step")
    console.held_out(90, 1.9)
    console.progress(record(step=600))
    console.held_out(600, 1.25)
    console.stop()
    last = [line for line in screen(stream) if "tok/s" in line][-1]
    assert "loss 1.754 → · held-out 1.250 · 12.8k tok/s" in last
