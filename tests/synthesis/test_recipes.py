"""Self-Instruct, Alpaca's single stage, and Magpie with a model whose answers are known."""

import collections
import functools
import json
import random

import pytest

from ift_jax.errors import UserError
from ift_jax.synthesis import filters, magpie, prompts, rounds, self_instruct, single_stage
from ift_jax.synthesis.generator import LENGTH, STOP, TOO_LONG, TextCompletion
from ift_jax.synthesis.rounds import Outputs, synthesize
from ift_jax.synthesis.seeds import Instance, SeedTask
from ift_jax.text.rows.parse_record import parse_record
from tests.synthesis.scripted import Killed, Killer, Scripted, babble

# No two of them are similar; the last four are classification tasks.
SEEDS = [
    SeedTask(
        f"verb{i} noun{i} thing{i} place{i}",
        (Instance("" if i % 2 else f"in {i}", f"out {i}"),),
        i > 7,
    )
    for i in range(12)
]
SMALL = {"prompts_per_round": 4, "max_tokens": 64}


def recipe(kind):
    if kind == "paper":
        return self_instruct.SelfInstruct(SEEDS, self_instruct.Settings(**SMALL))
    if kind == "alpaca":
        return single_stage.SingleStage(SEEDS, single_stage.Settings(tasks_per_prompt=8, **SMALL))
    return magpie.Magpie(magpie.Settings("<user>", **SMALL))


def make(kind, folder, target=40, answer=babble, max_rounds=99, **settings):
    """Run or continue synthesis in a folder; returns the counts and the model."""
    model = Scripted(answer)
    outputs = Outputs(str(folder / "made.jsonl"))
    journal = outputs.open_journal(model, {"kind": kind, **settings})
    log = []
    tally = synthesize(
        recipe(kind), journal, outputs, target=target, max_rounds=max_rounds, log=log.append
    )
    return tally, model


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows(folder, name="made.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


KINDS = pytest.mark.parametrize("kind", ["paper", "alpaca", "magpie"])


@KINDS
def test_a_run_killed_at_any_byte_and_resumed_has_the_same_files(kind, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    _, model = make(kind, whole)
    expected = files(whole)
    n_bytes = sum(map(len, expected.values()))
    rng = random.Random(kind)
    for i in range(4):
        folder = tmp_path / str(i)
        n_asked = 0
        for _ in range(3):  # Killed again while it resumes, and so on.
            with monkeypatch.context() as patch:
                Killer(patch, rng.randrange(n_bytes))
                killed = Scripted(babble)
                outputs = Outputs(str(folder / "made.jsonl"))
                with pytest.raises(Killed):
                    journal = outputs.open_journal(killed, {"kind": kind})
                    synthesize(
                        recipe(kind), journal, outputs, target=40, max_rounds=99, log=lambda _: None
                    )
                    raise Killed  # It was complete before the last kill.
            n_asked += len(killed.requests)
        _, last = make(kind, folder)
        assert files(folder) == expected
        # Only calls whose answers were cut off in writing are made again.
        assert n_asked + len(last.requests) <= len(model.requests) + 3 * 4 * 8


@KINDS
def test_a_run_that_a_signal_stops_between_two_calls_continues(kind, tmp_path):
    make(kind, tmp_path / "whole", target=99)
    outputs = Outputs(str(tmp_path / "made.jsonl"))
    asked = Scripted(babble)
    for n_calls in (1, 2, 3):  # A signal comes during each call.
        journal = outputs.open_journal(
            asked, {"kind": kind}, functools.partial(asked.has_answered, n_calls)
        )
        tally = synthesize(
            recipe(kind), journal, outputs, target=99, max_rounds=99, log=lambda _: None
        )
        assert tally.n_examples < 99 and asked.n_calls == n_calls
    make(kind, tmp_path, target=99)
    stopped = {name: content for name, content in files(tmp_path).items() if "whole" not in name}
    assert stopped == files(tmp_path / "whole")


@KINDS
def test_everything_that_was_written_is_kept_or_rejected_for_a_reason(kind, tmp_path):
    tally, _ = make(kind, tmp_path)
    counts = json.loads((tmp_path / "made.jsonl.synthesis/counts.json").read_text())
    assert counts == tally.fields()
    rejected = rows(tmp_path, "made.jsonl.synthesis/rejected.jsonl")
    for stage, of_stage in counts["stages"].items():
        assert of_stage["made"] == of_stage["kept"] + sum(of_stage["rejected"].values())
        reasons = collections.Counter(row["reason"] for row in rejected if row["stage"] == stage)
        assert reasons == of_stage["rejected"] and reasons
    assert len(rows(tmp_path)) == counts["examples"] >= 40
    printed = "\n".join(tally.lines())
    assert all(reason in printed for row in rejected for reason in [row["reason"]])


@KINDS
def test_a_larger_target_continues_the_data_set_and_a_smaller_one_asks_nothing(kind, tmp_path):
    make(kind, tmp_path, target=20)
    before = (tmp_path / "made.jsonl").read_bytes()
    make(kind, tmp_path, target=60)
    longer = (tmp_path / "made.jsonl").read_bytes()
    assert longer.startswith(before) and len(rows(tmp_path)) >= 60
    _, model = make(kind, tmp_path, target=1)
    assert not model.requests and (tmp_path / "made.jsonl").read_bytes() == longer
    make(kind, tmp_path / "at once", target=60)
    assert files(tmp_path / "at once") == {
        name: content for name, content in files(tmp_path).items() if "at once" not in name
    }


@KINDS
def test_rows_are_read_for_training(kind, tmp_path):
    make(kind, tmp_path)
    for number, row in enumerate(rows(tmp_path)):
        record = parse_record(row, f"line {number}")
        assert [message.role for message in record.messages] == ["user", "assistant"]
        assert all(message.content for message in record.messages)


@KINDS
def test_another_seed_or_model_is_refused_by_name(kind, tmp_path):
    make(kind, tmp_path, seed=0)
    with pytest.raises(UserError, match=r"made.jsonl: was begun with seed 0, now it is 1; name"):
        make(kind, tmp_path, seed=1)


def test_a_data_set_of_somebody_else_is_not_continued(tmp_path):
    (tmp_path / "made.jsonl").write_text('{"instruction": "x"}\n')
    with pytest.raises(UserError, match="exists, and there is no .*made.jsonl.synthesis"):
        make("paper", tmp_path)


def test_a_line_that_was_changed_is_named(tmp_path):
    make("paper", tmp_path)
    lines = (tmp_path / "made.jsonl").read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"instruction": "', '"instruction": "x')
    (tmp_path / "made.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match=r"made.jsonl:3: is not the line that the journal"):
        make("paper", tmp_path)


def test_a_model_that_writes_nothing_new_ends_it_in_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        make("magpie", tmp_path, answer=lambda request: "The same words every time.")
    message = str(error.value)
    assert f"{rounds.MOST_IDLE_ROUNDS} rounds in a row gave no example: 0 of 40 examples" in message
    with pytest.raises(UserError, match="--max-rounds: 0 of 40 examples after 3 rounds"):
        make("magpie", tmp_path / "b", answer=lambda _: "The same words.", max_rounds=3)


# --- Exact counts at each filter ---

INSTRUCTIONS = [
    "Name three rivers of Europe:",  # Kept, without its colon.
    "Draw a cat in a hat",
    "Sing now please",
    "Write a program that adds two numbers.",
    "- List of the things that I need",
    "Écris une phrase en français.",
    "Name three rivers in Europe!",
    "Decide whether a word is a verb or a noun.",  # Kept.
    "word " * 151,
    "",
]
PLAIN = """Input: none
Output: Rhine, Elbe, Po
Example 2
Input: Text:
Output: x
Example 3
Input: the same
Output: the same
Example 4
Input: none
Output: Rhine, Elbe, Po
Example 5
Output:
Example 6
Output: Seine, Loire, Ebro
"""
LABELS = """ verb
Input: run
Label: noun
Input: house
Label: verb
Input: house
Label: noun"""


def known(request):
    prompt = request.prompt
    if prompt.endswith("Task 9:"):
        return "\nTask 9: ".join(INSTRUCTIONS)
    if prompt.endswith("Fixed labels:"):
        return " Yes" if "verb or a noun" in prompt.rpartition("Task:")[2] else " no"
    return LABELS if prompt.endswith("Label:") else PLAIN


def test_self_instruct_counts_at_each_filter():
    settings = self_instruct.Settings(prompts_per_round=1)
    of_round = self_instruct.SelfInstruct(SEEDS, settings).round(0, Scripted(known))
    assert of_round.rows == [
        {
            "instruction": "Name three rivers of Europe",
            "input": "",
            "output": "Rhine, Elbe, Po",
        },
        {
            "instruction": "Decide whether a word is a verb or a noun.",
            "input": "run",
            "output": "verb",
        },
    ]
    assert of_round.made == {"instructions": 10, "kinds": 2, "instances": 10}
    assert of_round.kept == {"instructions": 2, "kinds": 2, "instances": 2}
    reasons = collections.Counter((item.stage, item.reason) for item in of_round.rejected)
    assert reasons == {
        ("instructions", filters.BANNED_WORD): 1,
        ("instructions", filters.TOO_SHORT): 1,
        ("instructions", filters.PROGRAM): 1,
        ("instructions", filters.PUNCTUATION): 1,
        ("instructions", filters.NOT_ENGLISH): 1,
        ("instructions", filters.SIMILAR): 1,
        ("instructions", filters.TOO_LONG): 1,
        ("instructions", filters.EMPTY): 1,
        ("instances", filters.CONTRADICTED): 2,
        ("instances", filters.REPEATED): 1,
        ("instances", filters.COLON): 1,
        ("instances", filters.SAME_AS_INPUT): 1,
        ("instances", filters.EMPTY): 1,
        ("instances", filters.TOO_MANY): 1,
        ("instances", filters.NO_OUTPUT): 1,
    }


def test_the_last_text_of_an_answer_that_was_cut_off_is_not_kept():
    def cut(request):
        return TextCompletion(known(request), LENGTH)

    settings = self_instruct.Settings(prompts_per_round=1)
    of_round = self_instruct.SelfInstruct(SEEDS, settings).round(0, Scripted(cut))
    reasons = collections.Counter((item.stage, item.reason) for item in of_round.rejected)
    assert reasons["instructions", filters.CUT_OFF] == 1
    assert reasons["instances", filters.CUT_OFF] == 2


@KINDS
def test_a_prompt_without_room_is_counted(kind):
    of_round = recipe(kind).round(0, Scripted(lambda _: TextCompletion("", TOO_LONG)))
    assert {item.reason for item in of_round.rejected} == {filters.NO_ROOM}
    assert sum(of_round.made.values()) == 4 and not of_round.rows


def test_single_stage_counts_at_each_filter():
    text = """ Name three rivers of Europe.
Input: none
Output: Rhine, Elbe, Po

Task 5
Instruction: Name three rivers of Europe!
Input:
Output: Rhine

Task 6
Instruction: Shorten the given sentence a lot.
Input: It is, one may say, late.
Output: It is
late.

Task 7
Instruction: Plot the function that is given.
Output: x

Task 8
Instruction: Tell me what time it is.
Input: 3 pm
"""
    settings = single_stage.Settings(prompts_per_round=1)
    of_round = single_stage.SingleStage(SEEDS, settings).round(0, Scripted(lambda _: text))
    assert of_round.rows == [
        {
            "instruction": "Name three rivers of Europe.",
            "input": "",
            "output": "Rhine, Elbe, Po",
        },
        {
            "instruction": "Shorten the given sentence a lot.",
            "input": "It is, one may say, late.",
            "output": "It is\nlate.",
        },
    ]
    assert [item.reason for item in of_round.rejected] == [
        filters.SIMILAR,
        filters.BANNED_WORD,
        filters.NO_OUTPUT,
    ]


def test_magpie_counts_at_each_filter():
    turns = iter(
        ["What is a plum?", "what is a plum", "これは何?", "これは何?", " ", "cut", "Echo it."]
    )

    def answer(request):
        if isinstance(request.prompt, str):
            assert request.prompt == "<user>" and request.controls
            text = next(turns)
            return TextCompletion(text, LENGTH if text == "cut" else STOP)
        [message] = request.prompt
        return (
            message.content if message.content == "Echo it." else f"An answer to {message.content}"
        )

    settings = magpie.Settings("<user>", prompts_per_round=7)
    of_round = magpie.Magpie(settings).round(0, Scripted(answer))
    assert [row["messages"][0]["content"] for row in of_round.rows] == [
        "What is a plum?",
        "これは何?",
    ]
    assert [item.reason for item in of_round.rejected] == [
        filters.SIMILAR,
        filters.SIMILAR,
        filters.EMPTY,
        filters.CUT_OFF,
        magpie.SAME_AS_INSTRUCTION,
    ]


# --- Prompts ---


def test_prompts_show_six_tasks_of_people_and_two_that_were_made(tmp_path):
    _, model = make("paper", tmp_path)
    made = {row["instruction"] for row in rows(tmp_path)}
    asked = [r.prompt for r in model.requests if r.prompt.endswith("Task 9:")]
    n_of_people = [sum(f": {seed.instruction}\n" in prompt for seed in SEEDS) for prompt in asked]
    assert n_of_people[:4] == [8] * 4 and set(n_of_people[4:]) == {6}
    assert any(f": {instruction}\n" in prompt for prompt in asked[4:] for instruction in made)
    assert len(set(asked)) == len(asked)
    assert len({request.seed for request in model.requests if request.temperature}) == len(asked)


def test_what_a_prompt_shows_is_read_back_as_it_was():
    seeds = [
        SeedTask("Add", (Instance("1 + 1", "2\n\nor two"), Instance("", "nothing"))),
        SeedTask("Is it?", (Instance("", "yes"),), True),
    ]
    shown = prompts.input_first_prompt(seeds[:1], "New").partition("Example 1\n")[2]
    drafts = prompts.read_input_first(shown.partition("\nTask:")[0])
    assert [draft[:2] for draft in drafts] == [("1 + 1", "2\n\nor two"), ("", "nothing")]
    shown = prompts.output_first_prompt(seeds[1:], "New").partition("Label:")[2]
    [draft] = prompts.read_output_first(shown.partition("\nTask:")[0])
    assert draft[:2] == ("", "yes")
    shown = prompts.single_stage_prompt(seeds, 20).partition("Instruction:")[2]
    tasks = prompts.read_single_stage(shown.rpartition("\nTask 3")[0])
    assert [(text, *draft[:2]) for text, draft in tasks] == [
        ("Add", "1 + 1", "2\n\nor two"),
        ("Is it?", "", "yes"),
    ]
