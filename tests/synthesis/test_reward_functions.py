"""Reward functions: those with a name, a user's, and what goes wrong in one."""

import json
import sys

import pytest

from ift_jax.commands.main import main
from ift_jax.errors import UserError
from ift_jax.synthesis import own_decoder
from ift_jax.synthesis.reward_functions import FunctionSpec, check_row, load_function
from tests import small_models
from tests.synthesis.rejection_runs import Script, write_rows

USERS = """
import os, time

def score(completion, row):
    kind = row["kind"]
    if kind == "raises":
        raise ValueError("no such unit")
    if kind == "nan":
        return float("nan")
    if kind == "hangs":
        time.sleep(600)
    if kind == "dies":
        os._exit(7)
    if kind == "text":
        return "1"
    return len(completion)

def one(completion):
    return 1
"""


@pytest.mark.parametrize(
    ("name", "row", "rewards"),
    [
        ("exact-match", {"targets": "Paris "}, {" Paris": 1, "paris": 0, "": 0}),
        ("exact-match", {"messages": [{"role": "assistant", "content": "6"}]}, {"6": 1, "7": 0}),
        (
            "number",
            {"answer": "6*7\n#### 1,042"},
            {"so 1,042.": 1, "#### 1042 not 3": 1, "7": 0, "": 0},
        ),
        ("number", {"output": 42}, {"It is $42": 1, "42 or 43": 0}),
        ("regex:(?i)^yes", {}, {"Yes!": 1, "no, yes": 0}),
        (
            "ifeval",
            {
                "instruction_id_list": ["punctuation:no_comma", "startend:end_checker"],
                "kwargs": [{}, {"end_phrase": "Done.", "num_words": None}],
            },
            {"All is well. Done.": 1, "Well, well. Done.": 0.5, ", ": 0, "": 0},
        ),
    ],
)
def test_functions_with_a_name(name, row, rewards):
    spec = FunctionSpec(name)
    check_row(spec, row, "rows.jsonl:1")
    function = load_function(spec)
    assert {text: function(text, row) for text in rewards} == rewards


@pytest.mark.parametrize(
    ("spec", "row", "message"),
    [
        (FunctionSpec("number"), {"inputs": "x"}, "r:1: no right answer to compare with; expected"),
        (FunctionSpec("number", "gold"), {"answer": "1"}, "a field 'gold' .*; there: answer"),
        (FunctionSpec("exact-match"), {"targets": [1]}, "field 'targets': expected a right answer"),
        (FunctionSpec("ifeval"), {"inputs": "x"}, "r:1: expected IFEval's fields"),
        (
            FunctionSpec("ifeval"),
            {"instruction_id_list": ["no:such"], "kwargs": [{}]},
            "r:1: no instruction 'no:such'",
        ),
        (
            FunctionSpec("ifeval"),
            {"instruction_id_list": ["startend:quotation"], "kwargs": ["{}"]},
            "'kwargs', a list of as many objects",
        ),
        (
            FunctionSpec("ifeval"),
            {
                "instruction_id_list": ["length_constraints:number_words"],
                "kwargs": [{"num_words": "300", "relation": "at least"}],
            },
            "number_words: num_words: expected a whole number; found '300'",
        ),
        (
            FunctionSpec("ifeval"),
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": 5}]},
            "existence: keywords: expected a list of which each item is a string; found 5",
        ),
    ],
)
def test_a_row_without_what_a_function_reads_is_refused(spec, row, message):
    with pytest.raises(UserError, match=message):
        check_row(spec, row, "r:1")


def test_an_instruction_whose_package_is_missing_is_refused_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "langdetect", None)
    row = {"instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{}]}
    with pytest.raises(UserError, match="r:1: its instructions need the package langdetect; `lau"):
        check_row(FunctionSpec("ifeval"), row, "r:1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exact-mach", "no such reward; did you mean 'exact-match'"),
        ("regex:(", "regex:\\(: is no pattern"),
        ("none.py:score", "no such file: none.py; expected FILE.py:FUNCTION"),
        ("no_such_module:score", "no module 'no_such_module'"),
        ("users.py:scores", "users.py has no function 'scores'; did you mean 'score'"),
        ("users.py:one", "reward function users.py:one: expected a function of .completion, row"),
        ("broken.py:score", "reward function broken.py:score: ZeroDivisionError: .*broken.py:1"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.py").write_text(USERS)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match=message):
        load_function(FunctionSpec(name))


def test_failures_are_one_line_each_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    """Runs the whole command, with a scripted model and a process for the function."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.py").write_text(USERS)
    kinds = ["fine", "raises", "hangs", "nan", "dies", "text", "fine"]
    rows = [{"inputs": f"prompt {i}", "kind": kind} for i, kind in enumerate(kinds)]
    write_rows(tmp_path / "p.jsonl", rows)
    model = small_models.write_workdir(tmp_path / "model")
    monkeypatch.setattr(own_decoder.DecoderCompleter, "open", lambda *_: Script())
    command = [
        "synthesize",
        "rejection",
        "--model",
        model,
        "--prompts",
        "p.jsonl",
        "--samples",
        "1",
    ]
    command += ["--output", "out", "--reward", "users.py:score", "--reward-timeout", "3"]
    command.append("--keep-unfinished")
    assert main(command) == 3
    out, err = capsys.readouterr()
    begin = "reward function users.py:score: p.jsonl:"
    assert err.splitlines() == [
        f"{begin}2, sample 0: raised ValueError: no such unit ({tmp_path}/users.py:7)",
        f"{begin}3, sample 0: gave no reward within 3 s",
        f"{begin}4, sample 0: returned float nan; expected a finite number",
        f"{begin}5, sample 0: ended its process with status 7",
        f"{begin}6, sample 0: returned str '1'; expected a finite number",
    ]
    summary = json.loads((tmp_path / "out/round-1/summary.json").read_text())
    assert summary["failed_prompts"] == 5 and summary["selected"] == 2
    assert summary["failed_prompts_by_reason"] == {
        "died": 1,
        "not a number": 2,
        "raised": 1,
        "timed out": 1,
    }
    assert "1 prompt died, 2 prompts not a number, 1 prompt raised" in out
    assert "ift train --model model --data out/round-1/selected.jsonl" in out
    # The table knows the failures, so a second call ends alike without calling anything again.
    assert main(command) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--reward", "number", "--temperature", "0"], "--samples: 8 greedy completions would be"),
        (
            "--reward number --temperature 0 --samples 1 --top-p 0.9".split(),
            "--top-p: 0.9 needs a --temperature above 0",
        ),
        (
            ["--reward", "number", "--config.train.epochs=2"],
            "--config.train.epochs=2: expected --tr",
        ),
        (
            ["--reward", "number", "--prompt-field", "q"],
            "p.jsonl:1: no text in field 'q' (--prompt",
        ),
        (["--reward", "ifeval"], "p.jsonl:1: expected IFEval's fields"),
        (["--reward", "regex:("], "--reward regex:(: is no pattern"),
        (
            ["--judge", "model", "--judge-question", "x?", "--judge-answer", "Yes"],
            "--judge-question",
        ),
        (["--reward-model", "model"], "model/config.json: no model_type here"),
        (
            ["--reward", "number", "--endpoint", "http://x"],
            "--endpoint and --endpoint-model: expec",
        ),
        ([], "one of the arguments --reward --reward-model --judge is required"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, model_of_module, flags, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "p.jsonl", [{"inputs": "x", "targets": "1"}])
    (tmp_path / "model").symlink_to(model_of_module)
    command = ["synthesize", "rejection", "--model", "model", "--prompts", "p.jsonl"]
    assert main([*command, "--output", "out", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def model_of_module(tmp_path_factory):
    return small_models.write_workdir(tmp_path_factory.mktemp("run"))
