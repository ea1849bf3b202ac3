"""The last lines of a run: what training changed."""

import json

from ift_jax.training.summary import summary_lines


def write(folder, name, records):
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / name).write_text("".join(lines), encoding="utf-8")


def scores(value):
    """The metrics of two tasks, one of which cannot be computed."""
    of_one = {"exact_match": value, "stopped": 1.0, "rouge_l": None}
    return {"a": of_one, "b": of_one, "overall": of_one}


def test_losses_and_answers_before_and_after(tmp_path):
    metrics = [
        {"step": 0, "eval_loss": 2.5},
        {"step": 0, "preview_stop_rate": 0.0},
        {"step": 1, "nll": 2.4},
        {"step": 2, "nll": None},
        {"step": 2, "eval_loss": 1.25},
        {"step": 3, "nll": 1.1},
        {"step": 3, "eval_loss": 1.5},
        {"step": 3, "preview_stop_rate": 1.0},
        *({"step": step, "eval": scores(value)} for step, value in ((0, 0.0), (2, 0.75), (3, 0.5))),
    ]
    write(tmp_path, "metrics.jsonl", metrics)
    samples = [
        {"step": step, "prompt": f"Say {k}:\n", "completion": answer}
        for step, answer in ((0, "\u00e9\u00e9 " * 100), (3, "yes"))
        for k in range(3)
    ]
    write(tmp_path, "samples.jsonl", samples)
    lines = list(summary_lines(str(tmp_path), "runs/a", 80))
    assert lines[:9] == [
        "what changed:",
        "  held-out loss: 2.500 at step 0, 1.500 at step 3; lowest 1.250 at step 2",
        "  training loss: 2.400 at step 1, 1.100 at step 3",
        "  sampled answers that end by themselves: 0%, then 100%",
        "  answers to unseen examples, step 0 -> step 3:",
        "    mean over 2 tasks: exact match 0.000 -> 0.500",
        "    a: exact match 0.000 -> 0.500",
        "    b: exact match 0.000 -> 0.500",
        r"  prompt  'Say 0:\n'",
    ]
    assert lines.count("  after   'yes'") == 2
    assert lines[-3:] == [
        "  ift chat --workdir runs/a",
        "  ift eval --workdir runs/a",
        "  ift export --workdir runs/a --output DIR",
    ]
    assert max(map(len, lines)) <= 80


def test_where_the_time_went_is_one_line(tmp_path):
    seconds = {
        "steps": 7200.0,
        "restarting": 700.0,
        "saving": 80.0,
        "compiling": 18.0,
        "other": 2.0,
    }
    before = {"step": 1, "seconds": {"steps": 1.0}}
    write(tmp_path, "goodput.jsonl", [before, {"step": 9, "seconds": seconds}])
    first, second, *_ = summary_lines(str(tmp_path), "W", 80)
    assert first == "time 2:13:20: steps 90%, restarting 9%, saving 1%"
    assert second == "what next:"


def test_a_run_without_records_says_only_what_is_next(tmp_path):
    assert list(summary_lines(str(tmp_path), "W", 80))[0] == "what next:"
