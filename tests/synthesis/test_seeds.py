"""Seed files: the two layouts, and every mistake by file and line."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.synthesis.seeds import Instance, SeedTask, read_seeds
from tests.shared_data import SHARED, requires_shared

SEED = {"instruction": "Name it.", "instances": [{"input": "", "output": "x"}]}


def write(path, *lines) -> str:
    path.write_text(
        "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    )
    return str(path)


def test_both_layouts_are_read(tmp_path):
    flat = {"instruction": " Add. ", "input": "1 2", "output": "3\n"}
    full = SEED | {"id": "seed_task_0", "name": "n", "is_classification": True}
    assert read_seeds(write(tmp_path / "seeds.jsonl", flat, "", full), 2) == [
        SeedTask("Add.", (Instance("1 2", "3"),), False),
        SeedTask("Name it.", (Instance("", "x"),), True),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "column 2: Expecting property name"),
        ("[1]", "the line is a list; expected a JSON object"),
        ({"instances": SEED["instances"]}, "field 'instruction': expected a text; found fields"),
        (SEED | {"instruction": " "}, "field 'instruction': expected a text; found an empty one"),
        (SEED | {"instruction": 3}, "field 'instruction': expected a text; found a number"),
        (SEED | {"instances": []}, "field 'instances': expected a list of at least one object"),
        (SEED | {"instances": {}}, "field 'instances': expected a list of at least one object"),
        (SEED | {"instances": ["x"]}, "instances[0]: expected a JSON object, found a string"),
        (SEED | {"instances": [{"input": "x"}]}, "instances[0]: field 'output': expected a text"),
        ({"instruction": "Add."}, "instances[0]: field 'output': expected a text; found null"),
        (SEED | {"is_classification": "no"}, "field 'is_classification': expected true or false"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path / "seeds.jsonl", SEED, line)
    with pytest.raises(UserError) as error:
        read_seeds(path, 1)
    assert str(error.value).startswith(f"{path}:2: ") and message in str(error.value)


def test_a_file_that_is_missing_or_too_short_is_named(tmp_path):
    with pytest.raises(UserError, match="--seeds none.jsonl: cannot be read"):
        read_seeds("none.jsonl", 1)
    with pytest.raises(UserError, match="holds 1 tasks; expected at least 8"):
        read_seeds(write(tmp_path / "seeds.jsonl", SEED), 8)


@requires_shared
def test_the_papers_seeds_are_read():
    seeds = read_seeds(str(SHARED / "data/self_instruct/seed_tasks.jsonl"), 175)
    assert len(seeds) == 175 and sum(seed.is_classification for seed in seeds) == 26
