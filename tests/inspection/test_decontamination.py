"""N-gram overlap: covered tokens counted by hand, thresholds, report and filter."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.inspection import decontamination
from ift_jax.inspection.ngram_overlap import EvaluationSet, ngrams, overlaps, words
from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.rows import RowsSource, conversation
from tasks import jsonl
from tasks.gsm8k import tasks as gsm8k
from tests.shared_data import SHARED, requires_shared
from tests.sources.dataset_files import records, write

pytestmark = pytest.mark.usefixtures("own_registry")
TEN = "a b c d e f g h i j"


def test_covered_tokens_by_hand():
    assert words("It's 3.5,\nOK?") == ["it", "s", "3", "5", "ok"]
    evaluation = EvaluationSet("x", [[TEN], ["one two three"], [TEN + " k l m n o p q r s t"]])
    assert evaluation.too_short == 1
    # Nine words in a row: the n-grams at 0 and 1 of the first, nine tokens of its ten.
    nine = ngrams(words("z A b, c d (e) f g h i z"))
    assert evaluation.covered(nine) == {0: 0.9, 2: 9 / 20}
    assert evaluation.covered(ngrams("a b c d e f g z h i j".split())) == {}  # Seven in a row.
    two = EvaluationSet("x", [["a b c d", "e f g h i j"]])
    assert two.covered(ngrams(TEN.split())) == {}  # No n-gram crosses fields.
    three = EvaluationSet("x", [[TEN]], n=3)
    assert three.covered(ngrams("b c d q h i j".split(), 3)) == {0: 0.6}


def test_an_instance_must_be_covered_by_one_prompt():
    long = [f"w{i}" for i in range(32)]
    evaluation = EvaluationSet("x", [[" ".join(long)]])
    halves = [[" ".join(long[:16])], [" ".join(long[16:])]]
    assert overlaps(halves, [evaluation])["x"].overlapping == {}  # Exactly half each: not more.
    turns = overlaps([[" ".join(long[:16]), " ".join(long[16:])]], [evaluation])["x"]
    assert turns.overlapping == {}  # Turns of one conversation are prompts of their own.
    found = overlaps([*halves, [" ".join(long[:17])], [" ".join(long)]], [evaluation])["x"]
    assert found.overlapping == {0: 1.0} and found.training_examples == {2, 3}
    assert overlaps(halves, [evaluation], token_share=0.4)["x"].training_examples == {0, 1}


def _chat(root):
    def render(row, draws):
        return conversation(("user", row["q"]), ("assistant", row["a"]))

    register_task("chat", RowsSource("set", render, str(root), hub=False))


def test_report_and_filter(tmp_path, capsys):
    leaked = "the quick brown fox jumps over the lazy dog again"
    rows = [{"q": f"question number {i}", "a": leaked} for i in range(10)]
    rows[3]["q"] = f"Please say: {leaked.upper()}!"
    write(tmp_path / "set" / "train.jsonl", rows)
    write(tmp_path / "test.jsonl", [{"p": leaked, "x": ""}] + [{"p": TEN, "x": ""}] * 59)
    _chat(tmp_path)
    register_mixture("chats", [("chat", 1.0)])
    against = f"{tmp_path / 'test.jsonl'}:p,x"
    decontamination.main(
        [
            "--train",
            "chats",
            "--against",
            against,
            "--report",
            str(tmp_path / "report.json"),
            "--filtered",
            str(tmp_path / "clean"),
        ]
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"chat / {against}: 1.67% of 60 instances overlap, 1 training examples",
        "chat: 9 examples written",
    ]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"] == {"n": 8, "token_share": 0.5, "set_share": 0.02}
    found = report["tasks"]["chat"]
    assert (found["examples"], found["contaminated"]) == ([3], False)
    assert found["sets"][against]["overlapping"] == {"0": 1.0}
    jsonl.register(str(tmp_path / "clean"))
    assert len(records("jsonl_chat", "train")) == 9
    assert leaked.upper() not in (tmp_path / "clean" / "chat.jsonl").read_text()

    report = decontamination.contamination(["chat:train"], [against], set_share=0.01)
    assert report["tasks"]["chat"]["contaminated"]
    assert decontamination.write_filtered(report, str(tmp_path / "none"), drop_sets=True) == {}
    assert list((tmp_path / "none").iterdir()) == []


def test_mistakes_are_one_line(tmp_path):
    write(tmp_path / "test.jsonl", [{"p": TEN}])
    write(tmp_path / "set" / "train.jsonl", [{"q": "a", "a": "b"}])
    _chat(tmp_path)
    for against, message in (
        (f"{tmp_path / 'test.jsonl'}:q", "field 'q' is missing"),
        ("nothing:test", "'nothing' is no task, mixture or file"),
    ):
        with pytest.raises(SystemExit, match=message):
            decontamination.main(["--train", "chat", "--against", against])
    with pytest.raises(SystemExit, match="training task 'chat' is named twice"):
        file = f"{tmp_path / 'test.jsonl'}:p"
        decontamination.main(["--train", "chat", "--train", "chat:train", "--against", file])
    with pytest.raises(UserError, match="evaluation set 'x' has no instance"):
        EvaluationSet("x", [])


@requires_shared
def test_real_sets(tmp_path):
    gsm8k.register(str(SHARED / "data"))
    humaneval = f"{SHARED / 'data/humaneval/HumanEval.jsonl.gz'}:prompt"
    against = ["gsm8k:test", "gsm8k:validation", humaneval]
    report = decontamination.contamination(["gsm8k:all"], against)
    # "all" holds "validation".
    sets = report["tasks"]["gsm8k"]["sets"]
    assert sets["gsm8k:validation"]["share"] == 1.0 and sets["gsm8k:validation"]["contaminated"]
    assert sets["gsm8k:test"]["share"] == 0.0 and not sets[humaneval]["contaminated"]
    held = len(records("gsm8k", "validation"))
    assert sets["gsm8k:validation"]["training_examples"] >= held
