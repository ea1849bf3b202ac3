"""What commands print fits the terminal, sums up very many tasks, and needs no colors."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ift_jax.config.schema import Config, DataConfig, DecoderConfig, TokenizerConfig, TrainConfig
from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.score_table import table
from ift_jax.inspection.mixture_tables import show
from ift_jax.inspection.trained_marks import Run, choose_marks
from ift_jax.io.text_tables import FILE_WIDTH, Column, output_width, table_lines, wrapped
from ift_jax.preparation.row_notes import log_row_notes
from tests.data.made_stores import example, make_store

MANY = 1600
NAMES = ("natural_instructions_task1286_openbookqa_question_answering_{:04}", "任务_{:04}")
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Words:
    """Decodes a token to a word; one to marks that a user could have typed."""

    def decode(self, ids, keep_special):
        return "".join(f"w{i} " if i % 7 else f"⟦{i}⟧\n" for i in ids)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    made = []
    for k in range(4):
        examples = [example(5 + k + i % 3, 3 * (k == 3)) for i in range(2 + k)]
        store = make_store(folder, f"store{k}", [examples])
        own = {"cluster": f"cluster {k % 3}", "rows": "chats", "unread": {"lang": k + 1}}
        store.manifest.update(own)
        made.append(store)
    made[2].manifest["dropped"] = {"too_long": 2, "nothing_trained": 1}
    return made


def mixture(stores, n, name=NAMES[0]):
    names = [name.format(t) for t in range(n)]
    rates = 1.0 + np.arange(n) % 5
    return Mixture(names, rates, [stores[t % 4] for t in range(n)], [[]] * n)


CONFIG = Config(
    model=DecoderConfig(vocab_size=1000),
    data=DataConfig(mixture="none", max_length=64),
    tokenizer=TokenizerConfig(path="none"),
    train=TrainConfig(steps=2, batch_size=2),
)


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that runs another with a terminal as its output, and returns its lines."""

    def lines(columns, function):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        attributes = termios.tcgetattr(theirs)
        attributes[1] &= ~termios.OPOST  # Newlines as they are written.
        termios.tcsetattr(theirs, termios.TCSANOW, attributes)
        monkeypatch.delenv("COLUMNS", raising=False)
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        written = io.StringIO()
        with open(theirs, "w", encoding="utf-8") as stream:
            monkeypatch.setattr(sys, "stdout", Tee(stream, written))
            function()
        os.close(ours)
        monkeypatch.undo()
        return written.getvalue().splitlines()

    return lines


class Tee:
    """A stream that is a terminal, whose text is kept: a terminal holds only a few kilobytes."""

    def __init__(self, terminal, kept):
        self._terminal = terminal
        self._kept = kept
        self.encoding = "utf-8"

    def write(self, text):
        return self._kept.write(text)

    def flush(self):
        pass

    def isatty(self):
        return self._terminal.isatty()

    def fileno(self):
        return self._terminal.fileno()


def shown(stores, n, name=NAMES[0], asked=(), **options):
    return lambda: show(CONFIG, "train", mixture(stores, n, name), Words(), asked, 1, **options)


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [2, MANY])
def test_every_line_fits_the_terminal(stores, terminal, columns, name, n):
    lines = terminal(columns, shown(stores, n, name))
    assert any("\x1b[" in line for line in lines)
    plain = [COLORS.sub("", line) for line in lines]
    # An example is printed as it is, and a name in prose may be longer than a narrow line.
    tables = [line for line in plain if not re.search(r"\bw\d+ ", line)]
    wide = [line for line in tables if cell_len(line) > columns]
    assert all(max(map(cell_len, line.split())) > columns - 4 for line in wide)
    assert not wide or columns < 80
    if n == MANY and columns >= 80:
        assert len(lines) < 80


def test_a_name_is_never_cut_and_numbers_are_those_of_the_stores(stores, terminal):
    for columns in (80, 200):
        text = "\n".join(COLORS.sub("", line) for line in terminal(columns, shown(stores, 2)))
        for task in mixture(stores, 2).tasks:
            assert task in re.sub(r"\s+", "", text) if columns == 200 else task[-4:] in text
        assert "0 in every task: encoder p100, truncated, control strings, dropped" in text
        assert "1 field of its rows unused: lang (1)" in re.sub(r"\s+", " ", text)


def test_many_tasks_are_summed_up_and_all_lists_them(stores, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    shown(stores, MANY)()
    summary = capsys.readouterr().out
    ours = mixture(stores, MANY)
    n_examples = sum(map(len, ours.stores))
    assert f"{n_examples:,} examples here" in summary
    assert "dropped 1,200: too_long 800, nothing_trained 400" in summary
    assert "1,600 tasks: rows are chats" in summary
    assert (
        "1,600 tasks: fields of rows unused, with their numbers of records: lang (4,000)"
        in " ".join(summary.split())
    )
    for k, n_tasks in enumerate((800, 400, 400)):
        assert re.search(rf"cluster {k} +{n_tasks} ", summary)
    assert "tasks with the most drops" in summary and "tasks with the most epochs" in summary
    assert summary.count(", example ") == 3
    shown(stores, MANY, list_all=True)()
    listing = capsys.readouterr().out
    assert listing.count(", example ") == MANY
    shown(stores, MANY, asked=ours.tasks[:1])()
    one = capsys.readouterr().out
    assert set(re.findall(r"answering_(\d+)", one)) == {"0000"}


def parsed(text, marks):
    """The runs of a marked text: what `Marks.marked` was given, neighbors of one weight joined."""
    runs, at = [], 0
    inside = f"([^{marks.start}{marks.end}]*)"
    pattern = f"{marks.start}(?:{inside}{marks.start})?{inside}{marks.end}"
    for found in re.finditer(pattern, text):
        runs.append((text[at : found.start()], 0.0))
        runs.append((found[2], float(found[1] or 1)))
        at = found.end()
    return [run for run in [*runs, (text[at:], 0.0)] if run[0]]


TEXTS = st.text("ab ⟦⟧⟪⟫«»{}<>\n0.5" + chr(2) + chr(3), min_size=1)
WEIGHTS = st.sampled_from([0.0, 1.0, 0.5, 2.0])


@given(st.lists(st.tuples(TEXTS, WEIGHTS)))
def test_marks_give_back_exactly_the_trained_tokens(pairs):
    runs = [Run(*pair) for pair in pairs]
    marks = choose_marks([run.text for run in runs], "utf-8")
    context = [run for run in parsed(marks.marked(runs), marks) if not run[1]]
    trained = [run for run in parsed(marks.marked(runs), marks) if run[1]]
    assert trained == [pair for pair in pairs if pair[1]]
    assert "".join(text for text, _ in context) == "".join(r.text for r in runs if not r.weight)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_marks_can_be_written_in_the_encoding_of_the_output(encoding):
    marks = choose_marks(["a {text}"], encoding)
    assert len((marks.start + marks.end).encode(encoding).decode(encoding)) == 2


@pytest.mark.parametrize("how", ["pipe", "no color", "dumb terminal"])
def test_without_colors_trained_tokens_are_marked(stores, terminal, monkeypatch, capsys, how):
    if how == "pipe":
        shown(stores, 2)()
        text = capsys.readouterr().out
    else:
        name, value = ("NO_COLOR", "1") if how == "no color" else ("TERM", "dumb")

        def run():
            monkeypatch.setenv(name, value)
            shown(stores, 2)()

        text = "\n".join(terminal(120, run)) + "\n"
    assert "\x1b" not in text
    [found] = re.findall(r"trained tokens are between (.) and (.); everything else", text)
    marks = SimpleNamespace(start=found[0], end=found[1])
    body = text[text.index(", example 0") : text.index("trained tokens are between")]
    want = []
    for store in mixture(stores, 2).stores:
        tokens, weights = store.tokens_and_weights(0)
        changes = [0, *(np.flatnonzero(np.diff(weights)) + 1).tolist(), len(weights)]
        for start, stop in zip(changes, changes[1:], strict=False):
            if weights[start]:
                ids = tokens[start:stop].tolist()
                want.append((Words().decode(ids, True), float(weights[start])))
    assert [run for run in parsed(body, marks) if run[1]] == want and want


def test_the_width_is_that_of_columns_the_terminal_or_a_file(terminal, monkeypatch, tmp_path):
    widths = []
    terminal(93, lambda: widths.append(output_width()))
    assert widths == [93]
    monkeypatch.delenv("COLUMNS", raising=False)
    with open(tmp_path / "out", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert output_width() == FILE_WIDTH
        monkeypatch.setenv("COLUMNS", "77")
        assert output_width() == 77
        for bad in ("0", "wide", ""):
            monkeypatch.setenv("COLUMNS", bad)
            assert output_width() == FILE_WIDTH


CELLS = st.text("ab_/ 任é", max_size=40).filter(str.strip)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), st.integers(30, 90))
def test_a_table_loses_nothing_and_fits(rows, width):
    names, cells = zip(*rows, strict=True)
    keys = [Column("task", names, left=True)]
    for columns in ([Column("its value", cells)], [Column("its value", cells, left=True)] * 3):
        lines = table_lines(keys, columns, width)
        assert all(cell_len(line) <= width for line in lines)
        blocks = sum(line == "" for line in lines) + 1
        want = "".join(["task", *names] * blocks + ["its value", *cells] * len(columns))
        assert sorted("".join(lines).replace(" ", "")) == sorted(want.replace(" ", ""))


def test_prose_breaks_between_words_and_never_in_a_path():
    path = "/a/long/path/" + "folder/" * 12
    lines = wrapped(f"for the judge: {path} and more words here", 40, indent=2)
    assert f"    {path} " not in lines[0] and any(line.strip() == path for line in lines)
    assert all(len(line) <= 40 for line in lines if path not in line)


def result(n):
    of_task = {f"a_rather_long_task_name_of_a_mixture_{t:04}": {"examples": 5, "exact_match": t / n}
               for t in range(n)}  # fmt: skip
    for name in list(of_task)[: n // 2]:
        of_task[name]["said"] = "one"
    return {
        "tasks": of_task,
        "clusters": {f"c{k}": {"tasks": n // 40, "examples": 5, "exact_match": 0.5}
                     for k in range(40)},
        "overall": {"examples": 5 * n, "exact_match": (n - 1) / n / 2},
        "groups": {f"g{k}": {"median": 0.1, "lower": 0.0, "upper": 1.0, "tasks": 3}
                   for k in range(99)},
        "failures": [],
    }  # fmt: skip


def test_the_scores_of_many_tasks_are_summed_up():
    for width in (80, 200):
        lines = table("title", result(MANY), width)
        assert len(lines) < 80 and max(map(len, lines)) <= width
        text = "\n".join(lines)
        assert "mean over tasks" in text and "ift eval --all" in text
        assert re.search(r"median of tasks +5 +0.500", text)
        for t in (0, 4, MANY - 5, MANY - 1):
            assert f"mixture_{t:04}" in text.replace("\n", "")
        assert not any("mixture_0005" in line and "said" not in line for line in lines)
    everything = table("title", result(MANY), 200, list_all=True)
    assert sum("mixture_" in line and "said" not in line for line in everything) == MANY


def test_the_notes_of_many_new_stores_are_a_few_lines(stores):
    for n, most in ((3, 99), (MANY, 4)):
        ours = mixture(stores, n)
        lines = []
        log_row_notes(ours.tasks, ours.stores, {store.path for store in stores}, lines.append)
        assert lines and len(lines) <= most
        assert any(task in line for task in ours.tasks for line in lines) == (n == 3)
