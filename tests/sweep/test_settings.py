"""Which runs a sweep has: from flags and files, with names that do not change."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.sweep.settings import Setting, grid, parse_grid, read_settings, with_seeds

FOLDERS = [
    "data.max_tasks=1_train.steps=5/seed=0",
    "data.max_tasks=1_train.steps=5/seed=1",
    "data.max_tasks=4_train.steps=5/seed=0",
    "data.max_tasks=4_train.steps=5/seed=1",
]


def test_a_grid_is_every_combination_with_the_seeds_innermost():
    values = parse_grid(["data.max_tasks=1,4", "config.train.steps=5", "seed=0,1"])
    runs = grid(values, "--grid")
    assert [run.folder for run in runs] == FOLDERS
    assert runs[3].overrides == [
        "--config.data.max_tasks=4",
        "--config.train.steps=5",
        "--config.seed=1",
    ]
    # More values leave the old runs where they are.
    more = grid({**values, "data.max_tasks": [1, 2, 4]}, "--grid")
    assert set(FOLDERS) < {run.folder for run in more}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.yaml", "data: {max_tasks: [1, 4]}\ntrain.steps: 5\nseed: [0, 1]\n"),
        (
            "w.yml",
            "method: grid\nparameters:\n  data.max_tasks: {values: [1, 4]}\n"
            "  train.steps: {value: 5}\n  seed: {values: [0, 1]}\n",
        ),
        (
            "l.json",
            json.dumps(
                [
                    {"data.max_tasks": n, "train": {"steps": 5}, "seed": seed}
                    for n in (1, 4)
                    for seed in (0, 1)
                ]
            ),
        ),
        (
            "p.py",
            "def get_sweep():\n"
            "    return {'data.max_tasks': [1, 4], 'train.steps': 5, 'seed': [0, 1]}\n",
        ),
    ],
)
def test_files_of_all_forms_say_the_same(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert [run.folder for run in read_settings(str(tmp_path / name))] == FOLDERS


def test_values_are_written_as_overrides_take_them(tmp_path):
    [run] = grid(parse_grid(["optimizer.freeze=[a,b]", "optimizer.learning_rate=1e-4"]), "")[:1]
    assert run.overrides == [
        "--config.optimizer.freeze=('a', 'b')",
        "--config.optimizer.learning_rate=0.0001",
    ]
    assert "/" not in run.folder and "'" not in run.folder
    paths = grid({"model.init_from": ["a/b", "a-b"]}, "")
    assert len({each.folder for each in paths}) == 2  # Although both look like a-b.


def test_the_name_of_a_run_is_no_other_folder(tmp_path):
    file = tmp_path / "runs.yaml"
    file.write_text("- {name: .., train.steps: 1}\n- {name: ., train.steps: 2}\n")
    assert all(run.name.startswith("run-") for run in read_settings(str(file)))


def test_seeds_repeat_each_run_of_a_list():
    runs = with_seeds([Setting("a", {"x": 1}, None), Setting("b", {"x": 2}, None)], [3, 4], "f")
    assert [run.folder for run in runs] == ["a/seed=3", "a/seed=4", "b/seed=3", "b/seed=4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 3\n", "run 1: expected fields with values; got 3"),
        ("- {train.steps: 1}\n- {train.steps: 1}\n", "two runs would be in the folder"),
        ("seed: [a]\n", "seed 'a': expected a whole number"),
        ("method: bayes\nparameters: {}\n", "method 'bayes': expected 'grid'"),
        ("parameters: {a: 3}\n", "parameters.a: expected 'values' or 'value'"),
        ("parameters: [1]\n", "parameters: expected fields; got [1]"),
        ("1: [1, 2]\n", "expected the name of a field; got 1"),
        ("- {1: 2}\n", "run 1: expected the name of a field; got 1"),
        ("- {name: logs, train.steps: 1}\n", "name 'logs': the sweep writes that itself"),
        (
            "- {name: a, seed: 0, train.steps: 1}\n- {name: a, seed: 1, train.steps: 2}\n",
            "two runs named 'a' differ beyond the seed",
        ),
        ("a: [\n", "not YAML"),
        ("train.steps: []\n", "0 runs; expected 1 to 10,000"),
        ("3\n", "expected fields with lists of values, or a list of runs"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_settings(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", ["a", "a=", "=1", "a=[1", "a=1,{"])
def test_a_wrong_flag_is_one_line(item):
    with pytest.raises(UserError, match="expected FIELD=VALUE,VALUE"):
        parse_grid([item])
