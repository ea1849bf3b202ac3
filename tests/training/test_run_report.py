"""A run keeps a page about itself, which never hinders the run."""

import threading

import pytest

from ift_jax.io.paths import Workdir
from ift_jax.training import run_report
from ift_jax.training.run_report import RunReport


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def drawn(monkeypatch):
    """The paths of pages that were drawn; drawing one writes "page N"."""
    pages = []

    def draw(paths, names):
        pages.append((paths, names))
        return f"page {len(pages)}"

    monkeypatch.setattr("ift_jax.report.report.report", draw)
    return pages


def make(folder, lines, clock=None, writes=True):
    folder.mkdir(exist_ok=True)
    home = Workdir(str(folder))
    clock = clock or Clock()
    return RunReport(home, str(folder), lines.append, writes=writes, clock=clock)


def join(report):
    if report._thread:
        report._thread.join()


def test_pages_take_at_most_a_hundredth_of_the_time_and_the_last_is_always_drawn(
    tmp_path, drawn, monkeypatch
):
    clock, seconds = Clock(), iter([0.0, 2.0, 10.0, 14.0])
    monkeypatch.setattr(run_report.time, "thread_time", lambda: next(seconds))
    lines = []
    with make(tmp_path / "run", lines, clock) as report:
        for now, n_pages in ((0, 0), (299, 0), (300, 1), (399, 1), (400, 2), (999, 2)):
            clock.seconds = now
            report.update()
            join(report)
            assert len(drawn) == n_pages, now
    assert len(drawn) == 3
    assert drawn[0] == ([str(tmp_path / "run")], ["run"])
    assert (tmp_path / "run/report.html").read_text() == "page 3"
    assert lines == [f"report: {tmp_path}/run/report.html, renewed after evaluations"]


def test_the_run_does_not_wait_for_a_page_and_two_are_never_drawn_at_once(tmp_path, monkeypatch):
    may_end, names = threading.Event(), []

    def draw(paths, _):
        names.append(threading.current_thread().name)
        assert threading.current_thread() is threading.main_thread() or may_end.wait(60)
        return "page"

    monkeypatch.setattr("ift_jax.report.report.report", draw)
    clock = Clock()
    with make(tmp_path / "run", [], clock) as report:
        clock.seconds = 1e6
        report.update()
        report.update()  # The first is still being drawn.
        may_end.set()
    assert names == ["report", "MainThread"]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("odd\nfile")])
def test_a_page_that_fails_is_one_line(tmp_path, monkeypatch, error):
    def draw(paths, names):
        raise error

    monkeypatch.setattr("ift_jax.report.report.report", draw)
    clock, lines = Clock(), []
    with make(tmp_path / "run", lines, clock) as report:
        clock.seconds = 1e6
        report.update()
        join(report)
        report.update()
    assert len(lines) == 2
    why = " ".join(str(error).split())
    assert lines[1] == f"warning: no report, the run goes on without: {why}"


def test_a_run_that_fails_keeps_its_own_error_and_has_a_page_if_it_came_to_an_evaluation(
    tmp_path, drawn
):
    for name, evaluates in (("early", False), ("late", True)):
        lines = []
        with pytest.raises(ZeroDivisionError), make(tmp_path / name, lines) as report:
            if evaluates:
                report.update()
            raise ZeroDivisionError
        assert (tmp_path / name / "report.html").exists() == evaluates
        assert not lines
    with pytest.raises(KeyboardInterrupt), make(tmp_path / "killed", []) as report:
        report.update()
        raise KeyboardInterrupt
    assert not (tmp_path / "killed/report.html").exists()


def test_other_processes_draw_nothing(tmp_path, drawn):
    with make(tmp_path / "run", [], writes=False) as report:
        report.update()
    assert not drawn


def test_a_copy_for_a_bucket_never_takes_a_file_that_a_thread_is_writing(tmp_path):
    home = Workdir(str(tmp_path))
    (tmp_path / "report.html").write_text("page")
    (tmp_path / ".report.html.host-1-0123456789ab.tmp").write_text("pa")
    assert [path.name for path in home._stats()] == ["report.html"]
