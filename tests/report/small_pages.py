"""A small run's files, and the page of a small mixture, for the tests of pages."""

import json

from ift_jax.commands.main import main
from tests.small_models import write_workdir

ROWS = 6
CONVERSATION = [
    {"role": "system", "content": "Be <b>brief</b>."},
    {"role": "user", "content": "Where is it?"},
    {"role": "assistant", "content": "Here.", "weight": 0},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "There & here."},
]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def interval_of_overall(mean, width):
    return {"overall": {"exact_match": {"low": mean - width, "high": mean + width}}}


def write_run(workdir):
    """Write the files of a run of 20 steps; return its workdir."""
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
                "overall": {"examples": 2, "exact_match": mean},
                "intervals": {
                    "a/b": {"exact_match": {"low": right - 0.25, "high": 1.0}},
                    **({} if step == 10 else interval_of_overall(mean, width)),
                },
            }
            for step, right, mean, width in (
                (0, 0.25, 0.25, 0.25),
                (10, 0.25, 0.5, 0.25),
                (20, 0.5, 0.875, 0.125),
            )
        ],
    )
    scores = {"examples": 4, "exact_match": 0.75, "own_metric": 12.5, "baseline": 0.25}
    interval = {"exact_match": {"low": 0.301, "high": 0.954}}
    intervals = {"a/b": interval, "overall": interval}
    part = {"tasks": {"a/b": scores}, "overall": scores, "groups": {}, "failures": []}
    part["intervals"] = intervals
    (workdir / "evaluation.json").write_text(json.dumps({"unseen examples": part}))
    answers = [
        {"task": "a/b", "index": k, "references": ["x"], "answer": "x" if k else "y"}
        for k in range(4)
    ]
    write_lines(workdir / "answers.jsonl", answers)
    (workdir / "benchmarks").mkdir()
    found = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
    of_one = {"value": 1.0, "low": None, "high": None, "n": 1}
    gsm8k = {"shots": 8, "metrics": {"strict": found}, "groups": {"g": {"em": of_one}}}
    results = {"step": 20, "benchmarks": {"gsm8k": gsm8k}}
    (workdir / "benchmarks/results.json").write_text(json.dumps(results))
    return workdir


def write_inspection(folder):
    """Write the page of a small mixture of conversations into a folder; return its path."""
    model = write_workdir(folder / "model")
    rows = [{"messages": CONVERSATION}] * ROWS + [{"messages": CONVERSATION[:2]}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [
        "--model",
        model,
        "--data",
        str(folder / "rows.jsonl"),
        "--html",
        str(folder / "x.html"),
    ]
    stores = [
        f"--config.data.store_dir={folder}/stores",
        "--config.data.max_dropped_fraction=0.5",
    ]
    assert main(["inspect", *flags, *stores]) == 0
    return folder / "x.html"
