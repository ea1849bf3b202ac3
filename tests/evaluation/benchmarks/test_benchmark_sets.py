"""The published files become problems, and answers become scores."""

import json
import math
import random
import shutil

import numpy as np
import pytest

from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks import bbh, gsm8k, hellaswag, human_eval
from ift_jax.evaluation.benchmarks.base import Answered, Item, Ratio, normalized_scores
from ift_jax.evaluation.benchmarks.data_files import DataFiles
from ift_jax.evaluation.benchmarks.estimates import estimate, mean_of_groups
from ift_jax.evaluation.benchmarks.registry import BENCHMARKS, choose
from ift_jax.evaluation.benchmarks.run_benchmarks import Settings, prepare, summary
from tests.evaluation.benchmarks import small_sets
from tests.shared_data import SHARED, requires_shared


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    root = tmp_path_factory.mktemp("releases")
    small_sets.write_releases(root)
    return root


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    root = tmp_path_factory.mktemp("exports")
    small_sets.write_exports(root)
    return root


def _items(root, name, shots=None, chat=True):
    benchmark = BENCHMARKS[name]
    shots = benchmark.shots if shots is None else shots
    return benchmark.items(DataFiles(str(root)), shots, chat=chat)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_release_and_export_give_the_same_problems(name, releases, exports):
    items = _items(releases, name)
    assert items and items == _items(exports, name)
    assert len({item.id for item in items}) == len(items)
    if BENCHMARKS[name].shots or items[0].choices:
        shots = BENCHMARKS[name].shots or 1
        shown = _items(releases, name, shots)
        assert shown == _items(exports, name, shots)
        assert {len(item.solved) for item in shown} == {shots}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_missing_file_is_named_with_where_to_get_it(name, tmp_path):
    with pytest.raises(UserError) as error:
        _items(tmp_path, name)
    message = str(error.value)
    source = BENCHMARKS[name].source
    assert message.startswith(f"--benchmark-data {tmp_path}: ") and message.endswith(source)
    assert "expected " in message and "\n" not in message


def test_prompts_are_the_literatures(releases):
    problem = _items(releases, "gsm8k")[1]
    assert problem.question == "Question: Anna counts 1 apples and 2 apples?\nAnswer:"
    assert problem.solved[7] == ("Question: Count 7?\nAnswer:", "Anna has 5 apples.\n#### 5")
    task = _items(releases, "bbh")[0]
    assert task.instruction == "Say where it ends.\n\n" and task.group == "navigate"
    cue = "A: Let's think step by step."
    assert task.solved[0] == (f"Q: Go 0?\n{cue}", "It goes on.\nSo the answer is Yes.")
    assert task.question == f"Q: Turn?\nOptions:\n- Yes\n- No\n{cue}"
    question = _items(releases, "mmlu")[1]
    head = "The following are multiple choice questions (with answers) about high school math.\n\n"
    assert question.instruction == head and question.target == 1
    assert question.question == "What is 1?\nA. one\nB. two, or so\nC. three\nD. four\nAnswer:"
    assert question.solved[2].answer == "C"
    science = _items(releases, "arc_challenge", 1)[1]
    assert science.solved == (("Question: Hot?\nAnswer:", "sun"),)
    assert (science.choices, science.target) == (("a b", "ice", "c"), 1)
    ending = _items(releases, "hellaswag")[0]
    assert ending.question == "Sorting: The user sorts files. How. Sort them Then he"
    assert ending.choices[2] == "counts apples now."


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("gsm8k", "gsm8k/test.jsonl", '{"question": 1, "answer": "2"}', "test.jsonl:1: field 'que"),
        (
            "gsm8k",
            "gsm8k/train.jsonl",
            '{"question": "a", "answer": "b"}',
            "1 problems; expected 8",
        ),
        (
            "mmlu",
            "mmlu/test/high_school_math_test.csv",
            "a,b,c",
            "row 1: expected 6 cells, found 3",
        ),
        ("mmlu", "mmlu/dev/high_school_math_dev.csv", "q,a,b,c,d,E", "letter from A to D"),
        ("bbh", "bbh/navigate.json", '{"examples": 3}', "field 'examples': expected a list"),
        ("bbh", "bbh/cot-prompts/navigate.txt", "-----\nD\n\nQ: a", "example 1: expected a line"),
        ("arc_easy", "arc/ARC-Easy/ARC-Easy-Test.jsonl", '{"id": "a"}', "no field 'question'"),
        (
            "ifeval",
            "ifeval/input_data.jsonl",
            '{"key": 1, "prompt": "p", "instruction_id_list": ["a:b"], "kwargs": [{}]}',
            "input_data.jsonl:1: no instruction 'a:b'",
        ),
        (
            "ifeval",
            "ifeval/input_data.jsonl",
            '{"key": 1, "prompt": "p", "instruction_id_list": ["startend:quotation"], '
            '"kwargs": ["{}"]}',
            "input_data.jsonl:1: field 'kwargs': expected 1 object",
        ),
    ],
)
def test_a_wrong_file_is_named_by_line_and_field(name, file, text, message, releases, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(releases, root)
    (root / file).write_text(text)
    with pytest.raises(UserError, match=message):
        _items(root, name)


def test_bbh_without_its_prompts_says_how_to_do_without(releases, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(releases, root)
    (root / "bbh" / "cot-prompts" / "navigate.txt").unlink()
    with pytest.raises(UserError, match=r"bbh: navigate: 0 worked examples.*--few-shot 0 does"):
        _items(root, "bbh")
    assert _items(root, "bbh", 0)[0].instruction == ""


@requires_shared
def test_the_samples_of_the_published_sets_are_read():
    root = str(SHARED / "data")
    chosen = choose("gsm8k,bbh,ifeval,mt_bench,humaneval")
    pytest.importorskip("langdetect", reason="the extra ifeval is not installed")
    counts = {one.chosen.benchmark.name: one for one in prepare(chosen, root, Settings(limit=2))}
    published = {name: one.n_published for name, one in counts.items()}
    assert published == {"gsm8k": 400, "bbh": 1937, "ifeval": 541, "mt_bench": 80, "humaneval": 164}
    assert len(counts["bbh"].items) == 2 * 8 and len(counts["gsm8k"].items) == 2
    assert all(len(item.solved) == 3 for item in counts["bbh"].items)
    # The release's worked examples are answered as its own answers are read.
    for item in counts["bbh"].items:
        for solved in item.solved:
            assert bbh.final_answer(solved.answer) in solved.answer.splitlines()[-1]
            assert bbh.final_answer(solved.answer)[-1] != "."


# --- Scores ------------------------------------------------------------------------------------


def test_numbers_of_gsm8k_are_read_as_lm_evaluation_harness_reads_them():
    benchmark = BENCHMARKS["gsm8k"]

    def scores(answer, target="It is 1,200.\n#### 1,200"):
        return tuple(benchmark.score(Item("0", "q", target=target), answer).values())

    assert scores("so\n#### 1200") == (1, 1)
    assert scores("#### 1,200.\nQuestion: #### 7") == (1, 0)
    assert scores("The answer is $1,200.") == (0, 1)
    assert scores("#### -1200") == (0, 0) and scores("none") == (0, 0) and scores("") == (0, 0)
    assert scores("#### -3", "#### -3") == (1, 1)


def test_gsm8k_against_lm_evaluation_harness():
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.filters.extraction import RegexFilter

    strict = RegexFilter(r"#### (\-?[0-9\.\,]+)")
    flexible = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    draw = random.Random(0)
    pieces = ["#### ", "####", "12", "-3", "$1,200", ".", ",", " ", "\n", "the answer is ", "7.50"]
    texts = ["".join(draw.choices(pieces, k=draw.randint(0, 9))) for _ in range(300)]
    [[*theirs_strict]] = strict.apply([texts], [None])
    [[*theirs_flexible]] = flexible.apply([texts], [None])
    assert [gsm8k.strict_answer(text) for text in texts] == theirs_strict
    assert [gsm8k.flexible_answer(text) for text in texts] == theirs_flexible
    assert len(set(theirs_strict)) > 15


def test_the_answer_of_bbh():
    assert bbh.final_answer("Well.\nSo the answer is (A).\nSo the answer is (B).") == "(A)"
    assert bbh.final_answer("So the answer is a b c.") == "a b c"
    assert bbh.final_answer("so the answer is Yes") == "Yes"
    assert bbh.final_answer("No.") == "[invalid]"


def test_choices_are_normalized_by_characters_and_bytes():
    item = Item("0", "q", target=1, choices=("ab", "äöü", "abcdefgh"))
    # The sums favor the first; both means the third.
    assert normalized_scores(item, [-2.0, -2.5, -2.2]) == {"acc": 0, "acc_norm": 0, "acc_bytes": 0}
    # 3 characters and 6 bytes: right by bytes alone.
    scores = normalized_scores(item, [-1.0, -2.4, -3.9])
    assert scores == {"acc": 0, "acc_norm": 0, "acc_bytes": 1}
    assert normalized_scores(item, [-9.0, -0.3, -9.0]) == dict.fromkeys(scores, 1)


def test_estimates_against_closed_forms():
    found = estimate([1.0, 0.0, 0.0, 1.0, 0.0])
    share, n = 0.4, 5
    assert math.isclose(found["value"], share) and found["n"] == n
    assert math.isclose(found["stderr"], math.sqrt(share * (1 - share) / (n - 1)))
    # Wilson's interval for 8 of 10 and for 0 of 10: textbook values.
    eight = estimate([1.0] * 8 + [0.0] * 2)
    assert np.allclose((eight["low"], eight["high"]), (0.4902, 0.9433), atol=1e-4)
    assert np.allclose(estimate([0.0] * 10)["high"], 0.2775, atol=1e-4)
    # A ratio over items of equal size is the mean of their shares.
    ratios = estimate([Ratio(1, 2), Ratio(2, 2), Ratio(0, 2)])
    assert math.isclose(ratios["value"], 0.5)
    assert math.isclose(ratios["stderr"], np.std([0.5, 1, 0], ddof=1) / math.sqrt(3))
    assert (ratios["low"], ratios["high"]) == (0, 1)
    assert estimate([1.0]) == {"value": 1.0, "stderr": None, "low": None, "high": None, "n": 1}
    mean = mean_of_groups([estimate([0.0, 1.0]), estimate([1.0, 1.0, 1.0])])
    assert math.isclose(mean["value"], 0.75) and math.isclose(mean["stderr"], 0.5 / 2)


def test_groups_have_scores_of_their_own():
    items = [Item(str(i), "q", group="ab"[i > 0]) for i in range(4)]
    found = summary(items, [{"m": 1.0}, {"m": 0.0}, {"m": 0.0}, {"m": 1.0}])
    assert found["metrics"]["m"]["value"] == 0.5
    assert math.isclose(found["metrics"]["m, mean of groups"]["value"], (1 + 1 / 3) / 2)
    assert found["groups"]["b"]["m"]["n"] == 3


# --- Files for judges --------------------------------------------------------------------------


def test_files_for_judges(releases):
    [two, _] = _items(releases, "mt_bench")
    assert (two.temperature, two.follow_ups) == (0.7, ("Count again.",))
    answered = [Answered(two, ["one", "two"])]
    [(name, content)] = BENCHMARKS["mt_bench"].outputs(answered, "ours").items()
    line = json.loads(content)
    assert name == "model_answer/ours.jsonl" and line.pop("tstamp") > 0 and line.pop("answer_id")
    choices = [{"index": 0, "turns": ["one", "two"]}]
    assert line == {"question_id": 81, "model_id": "ours", "choices": choices}
    [one] = _items(releases, "alpaca_eval")
    [(name, content)] = BENCHMARKS["alpaca_eval"].outputs([Answered(one, ["3"])], "ours").items()
    assert name == "model_outputs.json"
    expected = {"instruction": "Count apples.", "output": "3", "generator": "ours"}
    assert json.loads(content) == [expected | {"dataset": "koala"}]


def test_completions_of_humaneval_follow_the_head(releases):
    [plain] = _items(releases, "humaneval", chat=False)
    assert plain.question == small_sets.HUMAN_EVAL[0]["prompt"]
    [chat] = _items(releases, "humaneval")
    code = 'def one(x):\n    """Return 1."""\n    return 1\n'
    answer = f"Sure:\n```python\nprint(2)\n```\nand\n```python\n{code}```\nDone."
    benchmark = BENCHMARKS["humaneval"]
    answered = [Answered(plain, ["    return 1\n"]), Answered(chat, [answer])]
    [(name, content)] = benchmark.outputs(answered, "ours").items()
    lines = [json.loads(line) for line in content.splitlines()]
    assert name == "samples.jsonl" and {line["task_id"] for line in lines} == {"HumanEval/0"}
    assert [line["completion"] for line in lines] == ["    return 1\n", code]
    for line in lines:  # What follows the head is Python; nothing is executed.
        compile(small_sets.HUMAN_EVAL[0]["prompt"] + line["completion"], "sample", "exec")
    assert human_eval.code_of("```\nreturn 1", "one") == "return 1"
    assert human_eval.code_of("return 1", "one") == "return 1"


# --- Choosing ----------------------------------------------------------------------------------


def test_benchmarks_are_chosen_by_name_and_task(releases):
    [one] = prepare(choose("bbh:word_sorting"), str(releases), Settings())
    assert [item.group for item in one.items] == ["word_sorting"]
    with pytest.raises(UserError, match="bbh:navigat: bbh has no such group; did you mean 'navi"):
        prepare(choose("bbh:navigat"), str(releases), Settings())
    with pytest.raises(UserError, match="--benchmarks gsm8: no such benchmark; did you mean"):
        choose("gsm8")
    with pytest.raises(UserError, match="named twice"):
        choose("gsm8k,gsm8k")


def test_text_of_hellaswag_is_cleaned():
    assert hellaswag.cleaned(" a [title] b [x] c") == "a. b c"
