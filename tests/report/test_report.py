"""The page of a run says what the run's files say, and asks the network for nothing."""

import html
import json
import re

import pytest

from ift_jax.commands.main import main
from ift_jax.report.plots import Series, line_plot
from ift_jax.report.report import report
from ift_jax.report.run_files import read_lines
from tests.small_models import write_workdir


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with the files of a run of 20 steps."""
    workdir = tmp_path_factory.mktemp("report") / "mine"
    write_workdir(workdir)
    losses = {"eval_task_loss": {"a/b": 3.5, "c": 2.5}, "heldout_loss": 3.75}
    tokens = {"a/b": 30, "c": 90}
    write_lines(
        workdir / "metrics.jsonl",
        [
            {"step": 0, "eval_loss": 3.0, **losses},
            {"step": 10, "nll": 2.75, "accuracy": 0.5, "task_tokens": tokens, "time": {"mfu": 0.4}},
            {"step": 20, "nll": None, "task_tokens": tokens, "time": {"mfu": None}},
            {"step": 20, "eval_loss": 2.125, "eval_task_loss": {"a/b": 1.5, "c": 2.75}},
        ],
    )
    fields = {"inputs_since": 0, "finished_at": 20}
    tasks = {"a/b": {"rate": 3.0, "examples": 7}, "c": {"rate": 1.0, "examples": 8}}
    record = {"inputs": {"mixtures": {"train": tasks}}, **fields}
    (workdir / "run.json").write_text(json.dumps(record))
    prompt = {"task": "a/b", "prompt": "<b>&Why?", "references": ["<i>So."], "stopped": False}
    write_lines(
        workdir / "samples.jsonl",
        [
            {"step": 0, "completion": "<script>alert(1)</script>", **prompt},
            {"step": 20, "completion": "So.", **prompt, "stopped": True},
        ],
    )
    write_lines(
        workdir / "evaluations.jsonl",
        [
            {
                "step": step,
                "which": "eval",
                "tasks": {"a/b": {"examples": 2, "exact_match": right, "own": None}},
                "overall": {"examples": 2, "exact_match": right},
                "intervals": {"a/b": {"exact_match": {"low": right - 0.25, "high": 1.0}}},
            }
            for step, right in ((0, 0.25), (20, 0.5))
        ],
    )
    scores = {"examples": 4, "exact_match": 0.75, "own_metric": 12.5}
    part = {"tasks": {"a/b": scores}, "overall": scores, "groups": {}, "failures": []}
    (workdir / "evaluation.json").write_text(json.dumps({"unseen examples": part}))
    answers = [
        {"task": "a/b", "index": k, "references": ["x"], "answer": "x" if k else "y"}
        for k in range(4)
    ]
    write_lines(workdir / "answers.jsonl", answers)
    return workdir


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
    assert ["mine", "20", "1", "2.125", "3.000", "2.125", "yes"] in rows
    assert ["a/b", "3.500", "1.500", "-2.000"] in rows
    assert ["c", "2.500", "2.750", "0.2500"] in rows
    assert ["c", "8", "25.00", "75.00", "180"] in rows
    assert ["a/b", "7", "75.00", "25.00", "60"] in rows
    assert ["task", "examples", "exact_match", "own_metric", "95% interval of exact match"] in rows
    assert ["a/b", "4", "0.7500", "12.50", "0.301 to 0.954"] in rows
    assert ["task", "metric", "step 0", "step 20"] in rows
    followed = ["a/b", "exact_match", "0.250 (0.000 to 1.000)", "0.500 (0.250 to 1.000)"]
    assert followed in rows
    assert ["mean over tasks", "exact_match", "0.250", "0.500"] in rows
    assert ["step 0 (cut off)", "<script>alert(1)</script>"] in rows
    assert ["step 20", "So."] in rows
    assert ["expected", "<i>So."] in rows
    assert ["model.d_model", "16"] in [row[:2] for row in rows]


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
    write_lines(other / "metrics.jsonl", [{"step": 0, "eval_loss": 9.0}])
    page = report([str(run), str(other)])
    rows = cells(page)
    assert ["field", str(run), str(other)] in rows
    assert ["train.steps", "1", "7"] in rows
    assert [str(other), "0", "7", "9.000", "9.000", "9.000", "not yet"] in rows


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


def test_a_line_that_is_being_written_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 20}\n{"step": 30, "ev')
    assert read_lines(str(tmp_path / "metrics.jsonl")) == [{"step": 20}]
