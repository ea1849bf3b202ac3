"""GSM8K: records, splits, and the final answer as a number."""

import re

import pytest

from tasks.gsm8k import tasks as gsm8k
from tasks.gsm8k.metrics import final_answer, last_number, marked_number
from tests.shared_data import SHARED, requires_shared
from tests.sources.dataset_files import records, write


@pytest.mark.usefixtures("own_registry")
def test_golden_record(tmp_path):
    row = {"question": "Two and two? ", "answer": "It is 2+2=<<2+2=4>>4.\n#### 4"}
    write(tmp_path / "gsm8k" / "train.jsonl", [row] * 40)
    write(tmp_path / "gsm8k" / "test.jsonl", [row])
    gsm8k.register(str(tmp_path))
    assert records("gsm8k", "test") == [
        {"inputs": "Two and two?", "targets": "It is 2+2=4.\n#### 4"}
    ]
    assert records("gsm8k_calculator", "test")[0]["targets"] == row["answer"]
    sizes = {split: len(records("gsm8k", split)) for split in ("train", "validation", "all")}
    assert sizes == {"train": 38, "validation": 2, "all": 40}


@pytest.mark.parametrize(
    ("text", "marked", "last"),
    [
        ("so 3\n#### 1,000", 1000, 1000),
        ("#### $18.50 or so\n#### 7", 18.5, 7),
        ("#### -5.", -5, -5),
        ("The answer is 12 apples.", None, 12),
        ("none", None, None),
        ("#### about 3", None, 3),
    ],
)
def test_numbers(text, marked, last):
    assert marked_number(text) == marked and last_number(text) == last


def test_final_answer():
    targets = ["work\n#### 70000", ["a\n#### 3", "b\n#### 4"], "#### 5", "#### 6"]
    answers = ["#### $70,000.00", "it is 4", "5\n#### 4", "nothing"]
    assert final_answer(targets, answers) == {"final_answer": 0.25, "final_answer_flexible": 0.5}
    with pytest.raises(ValueError):
        final_answer([], [])


@requires_shared
@pytest.mark.usefixtures("own_registry")
def test_real_rows():
    gsm8k.register(str(SHARED / "data"))
    train, test = records("gsm8k", "all"), records("gsm8k", "test")
    assert (len(train), len(test)) == (800, 400)
    targets = [record["targets"] for record in train + test]
    assert not any("<<" in text for text in targets)
    assert all(re.search(r"\n#### \S+$", text) for text in targets)
    assert final_answer(targets, targets) == {"final_answer": 1.0, "final_answer_flexible": 1.0}
    assert not {r["inputs"] for r in train} & {r["inputs"] for r in test}
