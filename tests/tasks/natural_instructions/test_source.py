"""Natural Instructions files: prompt, choice of instances, references, errors."""

import json

import pytest

from ift_jax.errors import UserError
from tasks.natural_instructions.source import (
    NaturalInstructionsDataSource,
    NaturalInstructionsOptions,
    load_task,
)

TASK = {
    "Categories": ["Arithmetic"],
    "Definition": ["Add the numbers"],
    "Positive Examples": [
        {"input": "1 2", "output": "3", "explanation": "1 + 2 = 3"},
        {"input": "2 2 ", "output": "four!", "explanation": ""},
        {"input": "5 5", "output": "10", "explanation": ""},
    ],
    "Negative Examples": [],
    "Instances": [
        {"id": f"task9-{i}", "input": f"{i} 1", "output": [str(i + 1), f"n{i + 1}", str(i + 1)]}
        for i in range(250)
    ],
}


def _write(tmp_path, **changes):
    path = tmp_path / "task9_add.json"
    path.write_text(json.dumps({k: v for k, v in (TASK | changes).items() if v is not None}))
    return str(path)


def _records(path, split, seed=0, **options):
    options = NaturalInstructionsOptions(**options)
    source = NaturalInstructionsDataSource(path, held_out=split == "test", options=options)
    return list(source.records(split, seed=seed))


def test_the_prompt_to_the_letter(tmp_path):
    [first] = _records(_write(tmp_path), "test", test_cap=1)
    assert first["inputs"] == (
        "Definition: Add the numbers.\n"
        "\n"
        " Positive Example 1 -\n"
        "Input: 1 2.\n"
        " Output: 3.\n"
        "\n"
        " Positive Example 2 -\n"
        "Input: 2 2.\n"
        " Output: four!\n"
        "\n"
        "Now complete the following example -\n"
        "Input: 0 1.\n"
        "Output: "
    )


def test_demonstrations_are_added_while_they_fit(tmp_path):
    path = _write(tmp_path)
    lengths = [len(_records(path, "test", positive_examples=k)[0]["inputs"]) for k in range(4)]
    assert lengths == sorted(set(lengths))
    for k in range(3):
        record = _records(path, "test", positive_examples=3, max_characters=lengths[k])[0]
        assert len(record["inputs"]) == lengths[k]
        assert record["inputs"].count("Positive Example") == k


def test_instances_are_capped_and_split_without_overlap(tmp_path):
    path = _write(tmp_path)
    splits = {split: _records(path, split) for split in ("train", "validation", "test")}
    assert {split: len(records) for split, records in splits.items()} == {
        "train": 100,
        "validation": 20,
        "test": 100,
    }
    inputs = {split: [r["inputs"] for r in records] for split, records in splits.items()}
    assert not set(inputs["train"]) & set(inputs["validation"])
    assert [f"Input: {i} 1." in text for i, text in enumerate(inputs["test"])] == [True] * 100
    assert inputs["train"] != [r["inputs"] for r in _records(path, "train", **{"seed": 0})][::-1]
    other = NaturalInstructionsOptions(seed=1)
    chosen = NaturalInstructionsDataSource(path, options=other).records("train")
    assert {r["inputs"] for r in chosen} != set(inputs["train"])


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, (1, 0)), (2, (1, 1)), (60, (54, 6)), (120, (100, 12))]
)
def test_sizes_of_small_tasks(tmp_path, n, sizes):
    path = _write(tmp_path, Instances=TASK["Instances"][:n])
    source = NaturalInstructionsDataSource(path)
    assert tuple(source.num_input_examples(s) for s in ("train", "validation")) == sizes


def test_targets_are_drawn_by_seed_and_references_are_all_kept(tmp_path):
    path = _write(tmp_path)
    epochs = [_records(path, "train", seed=seed) for seed in range(8)]
    assert epochs[0] == _records(path, "train", seed=0)
    for variants in zip(*epochs, strict=True):
        references = json.loads(variants[0]["references"])
        assert len(references) == 2  # Repeated outputs are kept once.
        assert {record["references"] for record in variants} == {variants[0]["references"]}
        assert {record["targets"] for record in variants} <= set(references)
    drawn = {record["targets"][0] == "n" for records in epochs for record in records}
    assert drawn == {True, False}
    for record in _records(path, "validation", seed=3):
        assert record["targets"] == json.loads(record["references"])[0]


def test_the_early_schema(tmp_path):
    instances = [{"input": "1 1", "output": "2"}]
    [record] = _records(_write(tmp_path, Definition="Add", Instances=instances), "test")
    assert record["inputs"].startswith("Definition: Add.\n\n")
    assert (record["targets"], record["references"]) == ("2", '["2"]')


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Definition": None}, "task9_add.json: Definition is missing; expected a string or"),
        ({"Definition": []}, "task9_add.json: Definition: expected at least one string"),
        ({"Instances": []}, "Instances is empty"),
        ({"Instances": {}}, "Instances is a dict; expected a list of objects"),
        ({"Instances": [{"input": "a"}]}, "Instances[0]: output is missing; expected a string or"),
        (
            {"Instances": [{"input": "a", "output": ["b"]}, {"input": 3, "output": ["b"]}]},
            "Instances[1]: input is a int; expected a string",
        ),
        ({"Instances": [{"input": "a", "output": []}]}, "Instances[0]: output: expected at least"),
        ({"Instances": [{"input": "a", "output": [1]}]}, "Instances[0]: output: expected at least"),
        ({"Positive Examples": [3]}, "Positive Examples[0]: expected an object"),
    ],
)
def test_errors_name_file_instance_and_field(tmp_path, changes, message):
    with pytest.raises(UserError) as caught:
        load_task(_write(tmp_path, **changes))
    assert message in str(caught.value)
    assert "task9_add.json" in str(caught.value)


def test_a_file_that_is_not_json(tmp_path):
    path = tmp_path / "task1.json"
    path.write_text('{\n"Definition": ')
    with pytest.raises(UserError, match=r"task1.json: line 2, column 15"):
        load_task(str(path))
