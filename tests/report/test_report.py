"""The page of a run says what the run's files say, and asks the network for nothing."""

import html
import itertools
import json
import re
import shutil

import pytest

from ift_jax.commands.main import main
from ift_jax.report import progress_sections, training_sections
from ift_jax.report.overview import Measure, Point, _row, measures
from ift_jax.report.plots import Series, line_plot
from ift_jax.report.report import renew_report, report
from ift_jax.report.run_files import RunFiles, read_lines, read_run
from tests.report import small_pages
from tests.small_models import write_workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return small_pages.write_run(tmp_path_factory.mktemp("report") / "mine")


@pytest.fixture(scope="module")
def page(run):
    return report([str(run)])


def cells(page):
    """The rows of all tables of a page, as texts."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    return [
        [
            html.unescape(re.sub("<[^>]*>", "", cell))
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row)
        ]
        for row in rows
    ]


def test_the_tables_have_the_numbers_of_the_files(page):
    rows = cells(page)
    assert "Step 20 of 1, complete." in page
    assert ["a/b", "3.500", "1.500", "-2.000"] in rows
    assert ["c", "2.500", "2.750", "0.2500"] in rows
    assert ["c", "8", "25.00", "75.00", "180"] in rows
    assert ["a/b", "7", "75.00", "25.00", "60"] in rows
    assert ["task", "examples", "exact match", "own_metric", "commonest answer"] in rows
    assert ["a/b", "4", "0.750 (0.301 to 0.954)", "12.500", "0.250"] in rows
    assert ["task", "metric", "step 0", "step 10", "step 20"] in rows
    followed = ["a/b", "exact_match", "0.250 (0.000 to 1.000)"]
    followed += ["0.250 (0.000 to 1.000)", "0.500 (0.250 to 1.000)"]
    assert followed in rows
    assert [
        "mean over tasks",
        "exact_match",
        "0.250 (0.000 to 0.500)",
        "0.500",
        "0.875 (0.750 to 1.000)",
    ] in rows
    assert ["gsm8k", "20", "8", "8", "strict", "0.500 (0.250 to 0.750)"] in rows
    assert ["gsm8k: g", "20", "8", "1", "em", "1.000"] in rows
    assert ["step 0 (cut off)", "<script>alert(1)</script>"] in rows
    assert ["step 20", "So."] in rows
    assert ["expected", "<i>So."] in rows
    assert ["model.d_model", "16"] in [row[:2] for row in rows]


def test_the_top_says_what_was_before_halfway_and_after_with_intervals(page):
    rows = cells(page)
    after = {}
    for name, row in itertools.pairwise(
        rows[: rows.index(["task", "metric", "step 0", "step 10", "step 20"])]
    ):
        after[name[0]] = row
    assert rows[0] == ["before", "halfway", "latest", "change"]
    assert after["loss on unseen examples of the trained tasks"] == [
        "3.000step 0",
        "",
        "2.125step 20",
        "\u2713 better-0.875",
    ]
    assert after["loss on tasks that are never trained"] == ["", "", "3.750step 0", ""]
    exact_match = after["exact match: unseen examples of the trained tasks (2 examples)"]
    assert exact_match == [
        "0.2500.000 to 0.500step 0",
        "0.500step 10",
        "0.8750.750 to 1.000step 20",
        "\u2713 better+0.625",
    ]
    assert after["exact match at the end: unseen examples (4 examples)"] == [
        "0.250commonest answer",
        "",
        "0.7500.301 to 0.954step 20",
        "above it+0.500",
    ]


@pytest.mark.parametrize(
    ("first", "last", "is_loss", "verdict"),
    [
        ((0.2, 0.1, 0.3), (0.5, 0.4, 0.6), False, "\u2713 better+0.300"),
        ((0.5, 0.4, 0.6), (0.2, 0.1, 0.3), False, "\u2717 worse-0.300"),
        ((0.2, 0.1, 0.3), (0.3, 0.2, 0.4), False, "not clear+0.100"),
        # The ends overlap, and still the interval of the difference, 0.15 +- 0.141, leaves out 0.
        ((0.2, 0.1, 0.3), (0.35, 0.25, 0.45), False, "\u2713 better+0.150"),
        ((0.4,), (0.3,), True, "\u2713 better-0.100"),
        ((0.4,), (0.5,), True, "\u2717 worse+0.100"),
        ((0.4,), (0.4,), True, "no change+0.000"),
        # A score without an interval, such as F1: 0.1 may be much or nothing.
        ((0.4,), (0.5,), False, "no interval+0.100"),
        ((0.4,), (0.5, 0.5, 0.5), False, "no interval+0.100"),
        ((0.4,), (0.4,), False, "no change+0.000"),
    ],
)
def test_a_change_within_noise_is_not_called_better(first, last, is_loss, verdict):
    measure = Measure("m", [Point(0, *first), Point(5, *last)], is_loss)
    [_, row] = cells(_row("m", measure))
    assert row[3] == verdict


def test_a_mean_over_tasks_names_the_examples_of_the_tasks_that_have_the_metric(tmp_path):
    workdir = small_pages.write_run(tmp_path / "mine")
    tasks = {
        "a/b": {"examples": 2, "exact_match": 0.5},
        "c": {"examples": 3, "exact_match": 0.0, "f1": 0.25},
    }
    overall = {"examples": 5, "exact_match": 0.25, "f1": 0.25}
    part = {"tasks": tasks, "overall": overall, "intervals": {}}
    small_pages.write_lines(workdir / "evaluations.jsonl", [{"step": 0, "which": "eval", **part}])
    (workdir / "evaluation.json").write_text(json.dumps({"unseen examples": part}))
    names = [measure.name for measure in measures(read_run(str(workdir), "mine"))]
    of_what = "unseen examples of the trained tasks"
    assert f"exact match: {of_what} (5 examples)" in names
    assert f"f1: {of_what} (3 examples)" in names
    assert "f1 at the end: unseen examples (3 examples)" in names


def test_a_best_value_in_between_is_named():
    measure = Measure("m", [Point(0, 3.0), Point(5, 1.5), Point(9, 2.0)], is_loss=True)
    [_, row] = cells(_row("m", measure))
    assert row == [
        "3.000step 0",
        "1.500step 5",
        "2.000step 9",
        "\u2713 better-1.000best 1.500 at step 5",
    ]


def test_text_of_the_run_is_never_markup(page):
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;Why?" in page


def test_the_page_needs_nothing_from_elsewhere(page):
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.findall(r"https?://|@import|url\((?!#)|<script|<iframe|srcset", without_names)
    sources = re.findall(r'(?:src|href)="([^"]*)"', without_names)
    assert all(source.startswith(("#", "data:")) for source in sources)


def test_ids_are_not_given_twice_with_other_contents(page):
    ids = re.findall(r' id="([^"]*)"', page)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', page))
    assert set(ids) >= used
    repeated = {name for name in ids if ids.count(name) > 1}
    assert not repeated


def test_the_same_numbers_give_the_same_plot():
    lines = [Series("a", [0, 1], [1.0, 2.0])]
    assert line_plot("t", lines, x_label="step") == line_plot("t", lines, x_label="step")


def test_a_plot_has_its_points_in_the_right_places():
    svg = line_plot("t", [Series("a", [0, 1, 2, 3], [0.0, 2.0, None, 1.0])], x_label="step")
    [path] = re.findall(r'<path d="([^"]*)"[^>]*style="fill: none; stroke: #0072b2', svg)
    places = [tuple(map(float, point)) for point in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    assert len(places) == 3  # The gap has no point.
    (x0, y0), (x1, y1), (x3, y3) = places
    assert x3 - x0 == pytest.approx(3 * (x1 - x0), rel=1e-3)
    assert y0 - y1 == pytest.approx(2 * (y0 - y3), rel=1e-3)
    assert "currentColor" in svg


def test_two_runs_share_plots_and_their_differences_are_listed(run, tmp_path):
    import dataclasses

    from tests.small_models import CONFIG

    train = dataclasses.replace(CONFIG.train, steps=7)
    other = tmp_path / "mine"  # The same name in another folder.
    write_workdir(other, dataclasses.replace(CONFIG, train=train))
    small_pages.write_lines(other / "metrics.jsonl", [{"step": 0, "eval_loss": 9.0}])
    page = report([str(run), str(other)])
    rows = cells(page)
    assert ["field", str(run), str(other)] in rows
    assert ["train.steps", "1", "7"] in rows
    assert f"{other}: step 0 of 7, not complete yet." in page
    assert [f"{run}: loss on unseen examples of the trained tasks"] in rows
    assert ["", "", "9.000step 0", ""] in rows


def test_the_command_writes_into_the_workdir_or_where_it_is_told(
    run, tmp_path, capsys, monkeypatch
):
    written = []
    monkeypatch.setattr(
        "ift_jax.report.report.report", lambda paths: written.append(paths) or "page"
    )
    assert main(["report", str(run), "--output", str(tmp_path / "x.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x.html'}\n"
    assert (tmp_path / "x.html").read_text() == "page"
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == "page"
    assert written == [[str(run)], [str(run)]]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "no config.json here; expected the workdir of a run" in capsys.readouterr().err


def test_a_hugging_face_folder_is_refused_by_name(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 32}')
    assert main(["report", str(tmp_path)]) == 2
    assert f"error: {tmp_path}: is not the workdir of a run" in capsys.readouterr().err


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 20}\n{"step": 30, "ev')
    assert read_lines(str(tmp_path / "metrics.jsonl")) == [{"step": 20}]


def test_a_page_is_renewed_only_where_there_is_one(run, tmp_path):
    assert renew_report(str(tmp_path)) is None
    shutil.copytree(run, tmp_path / "r")
    page = tmp_path / "r/report.html"
    page.write_text("old")
    assert renew_report(str(tmp_path / "r")) == str(page)
    assert "<title>r</title>" in page.read_text()


def test_of_many_tasks_the_median_and_those_that_changed_most_are_drawn(monkeypatch):
    drawn = {}
    for module in (training_sections, progress_sections):
        for name in ("line_plot", "bar_plot"):
            monkeypatch.setattr(
                module, name, lambda *args, **options: drawn.setdefault(args[0], args[1:])
            )
    tasks = [f"t{k:03d}" for k in range(101)]
    losses = [
        {"step": s, "eval_task_loss": {t: k * s for k, t in enumerate(tasks)}} for s in (1, 2)
    ]
    right = [{t: {"em": k % 50 * s} for k, t in enumerate(tasks)} for s in (0, 1)]
    evaluations = [
        {"step": s, "which": "eval", "tasks": of_tasks, "overall": {"em": 0.5}, "intervals": {}}
        for s, of_tasks in enumerate(right)
    ]
    names = ("path", "name", "config", "record", "metrics", "samples", "evaluations", "scores")
    values = dict.fromkeys((*names, "answers", "benchmarks"))
    of_run = RunFiles(**values)._replace(metrics=losses, evaluations=evaluations)
    training_sections.task_losses(of_run)
    [[median]] = drawn["Held-out loss of each task"]
    assert median.name == "median of 101 tasks, and their middle half"
    assert median.xs == [1, 2] and median.ys == [50, 100]
    assert median.errors == [(25, 25), (50, 50)]
    progress_sections.progress(of_run)
    shown, _ = drawn["Unseen examples of the trained tasks: the 20 tasks that changed most"]
    assert {"t049", "t099", "t000", "t050", "t100"} < set(shown)
    assert "t025" not in shown


def test_a_logarithmic_axis_needs_a_range():
    def labels(values):
        svg = line_plot("t", [Series("a", [0, 1], values)], x_label="x", log_y=True)
        return re.findall(r">([^<>]+)</text>", svg)

    assert len(labels([1.0, 1.0])) < 20
    assert {"1", "100"} < set(labels([1.0, 1000.0])) and "200" not in labels([1.0, 1000.0])
    assert "2" in labels([1.0, 5.0])
