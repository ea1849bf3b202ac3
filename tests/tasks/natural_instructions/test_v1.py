"""The first release of Natural Instructions: its schema, inputs and splits."""

import json

import pytest
import seqio

from ift_jax.errors import UserError
from tasks.natural_instructions import v1
from tasks.natural_instructions.v1 import NaturalInstructionsV1Source, V1Options
from tests.shared_data import SHARED, requires_shared

pytestmark = pytest.mark.usefixtures("own_registry")

OUTPUTS = ["How long?", "When?"]
SUBTASK = {
    "Title": "Asking about time",
    "Prompt": "Ask a question.",
    "Definition": "Write a question about the sentence.",
    "Things to Avoid": "-",
    "Emphasis & Caution": "Keep it short. ",
    "Examples": {
        "Positive Examples": [
            {"input": "He ran.", "output": "How long?", "reason": "It asks about time."},
            {"input": "She slept.", "output": "When?", "reason": ""},
        ],
        "Negative Examples": [
            {"input": "He ran.", "output": "Who?", "reason": "Not time.", "suggestion": "-"},
            "-",
        ],
    },
    "Instances": [{"input": f"It rained {i}.", "output": OUTPUTS} for i in range(40)],
}


def _write(root, name="subtask001_time", **changes):
    path = root / f"{name}.json"
    path.write_text(json.dumps({k: v for k, v in (SUBTASK | changes).items() if v is not None}))
    return str(path)


def test_the_input_to_the_letter(tmp_path):
    source = NaturalInstructionsV1Source(_write(tmp_path), held_out=True)
    first = next(source.records("test"))
    assert first == {
        "inputs": (
            "Title: Asking about time\n"
            "Prompt: Ask a question.\n"
            "Definition: Write a question about the sentence.\n"
            "Emphasis & Caution: Keep it short.\n"
            "Negative Example 1 -\n"
            "input: He ran.\n"
            "output: Who?\n"
            "reason: Not time.\n"
            "Positive Example 1 -\n"
            "input: He ran.\n"
            "output: How long?\n"
            "reason: It asks about time.\n"
            "Positive Example 2 -\n"
            "input: She slept.\n"
            "output: When?\n"
            "input: It rained 0.\n"
            "output: "
        ),
        "targets": "How long?",
        "references": '["How long?", "When?"]',
    }


def test_parts_and_examples_can_be_chosen(tmp_path):
    options = V1Options(parts=("Prompt",), positive_examples=0, negative_examples=0)
    source = NaturalInstructionsV1Source(_write(tmp_path), held_out=True, options=options)
    expected = "Prompt: Ask a question.\ninput: It rained 0.\noutput: "
    assert next(source.records("test"))["inputs"] == expected
    lengths = []
    for bound in range(0, 600, 20):
        options = V1Options(max_characters=bound)
        source = NaturalInstructionsV1Source(_write(tmp_path), held_out=True, options=options)
        text = next(source.records("test"))["inputs"]
        lengths.append(text.count(" Example "))
        assert lengths[-1] == 0 or len(text) <= bound
    assert set(lengths) >= {0, 3}


def test_splits_and_references(tmp_path):
    source = NaturalInstructionsV1Source(_write(tmp_path))
    train, validation = (list(source.records(split)) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (36, 4)
    assert not {r["inputs"] for r in train} & {r["inputs"] for r in validation}
    assert {r["targets"] for r in train} == {"How long?", "When?"}  # One reference is drawn.
    assert {r["targets"] for r in validation} == {"How long?"}


def test_the_list_of_held_out_subtasks_decides(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("subtask001_time", "subtask002-b"):
        _write(folder, name)
    v1.register(str(tmp_path))
    names = {t.name for t in seqio.MixtureRegistry.get("natural_instructions_v1_train").tasks}
    assert names == {f"natural_instructions_v1_subtask{n}" for n in ("001_time", "002_b")}
    assert "natural_instructions_v1_heldout" not in seqio.MixtureRegistry.names()


def test_held_out_subtasks_have_no_train_split(tmp_path):
    for name in ("subtask001_time", "subtask002"):
        _write(tmp_path, name)
    (tmp_path / "splits/v1").mkdir(parents=True)
    (tmp_path / "splits/v1/test_tasks.txt").write_text("subtask002\n")
    v1.register(str(tmp_path))
    v1.register(str(tmp_path))
    [heldout] = seqio.MixtureRegistry.get("natural_instructions_v1_heldout").tasks
    assert heldout.splits == ("test",)
    [train] = seqio.MixtureRegistry.get("natural_instructions_v1_train").tasks
    assert train.name == "natural_instructions_v1_subtask001_time"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Definition": None}, "Definition is missing"),
        ({"Instances": []}, "Instances: expected at least one"),
        ({"Instances": [{"output": "a"}]}, "Instances[0]: input is missing"),
        ({"Instances": [{"input": "a", "output": []}]}, "Instances[0]: output: expected at least"),
    ],
)
def test_errors_name_file_and_field(tmp_path, changes, message):
    with pytest.raises(UserError) as caught:
        list(
            NaturalInstructionsV1Source(_write(tmp_path, **changes), held_out=True).records("test")
        )
    assert message in str(caught.value) and "subtask001_time.json" in str(caught.value)


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        v1.register("")
    with pytest.raises(UserError, match="no subtask"):
        v1.register(str(tmp_path))


@requires_shared
def test_real_subtasks():
    v1.register(str(SHARED / "data" / "natural_instructions"))
    tasks = seqio.MixtureRegistry.get("natural_instructions_v1_train").tasks
    assert len(tasks) == 11
    for task in tasks:
        for split in task.splits:
            records = list(task.source.records(split))
            assert records and all(r["inputs"] and r["targets"] for r in records)
            assert all(r["inputs"].endswith("\noutput: ") for r in records)
        assert "Definition: " in records[0]["inputs"]
