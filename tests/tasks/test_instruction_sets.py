"""Complete records of LIMA, Alpaca, Dolly, Self-Instruct and InstructGPT, written by hand."""

import json
import logging

import pytest
import seqio

from ift_jax.errors import UserError
from tasks import alpaca, dolly, instructgpt, lima, self_instruct
from tests.shared_data import SHARED, requires_shared
from tests.sources.dataset_files import messages, records, write

pytestmark = pytest.mark.usefixtures("own_registry")


def test_lima(tmp_path):
    rows = [{"conversations": [f"q{i}", f"a{i}"], "source": "wikihow"} for i in range(38)]
    rows.append({"conversations": ["Hi", "Hello", "Bye", "Good bye"], "source": "multi_turn"})
    write(tmp_path / "lima" / "train.jsonl", rows)
    lima.register(str(tmp_path))
    found = records("lima", "all")
    assert len(found) == 39 and len(records("lima_single_turn", "all")) == 38
    assert found[-1] == {
        "messages": '[{"role": "user", "content": "Hi"}, '
        '{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Bye"}, '
        '{"role": "assistant", "content": "Good bye"}]'
    }
    assert len(records("lima", "train")) + len(records("lima", "validation")) == 39
    write(tmp_path / "lima" / "train.jsonl", [{"conversations": ["no answer"], "source": "x"}])
    with pytest.raises(UserError, match=r"train.jsonl:1: .*conversations: expected a user's"):
        records("lima", "all")
    with pytest.raises(UserError, match="GAIR/lima: the split 'train' is not on this machine"):
        dataset = seqio.TaskRegistry.get("lima").source
        (tmp_path / "lima" / "train.jsonl").unlink()
        dataset.fingerprint("train")


def test_alpaca_has_its_two_forms(tmp_path):
    rows = [
        {"instruction": "Add them.", "input": "2, 3", "output": "5", "text": "not read"},
        {"instruction": "Name a colour.", "input": "", "output": "Red"},
        {"instruction": "Say nothing.", "input": "", "output": ""},
    ]
    write(tmp_path / "alpaca_data.json", rows)
    alpaca.register(str(tmp_path))
    paired, plain, silent = map(messages, records("alpaca", "all"))
    assert paired == [("system", "Add them."), ("user", "2, 3"), ("assistant", "5")]
    assert plain == [("user", "Name a colour."), ("assistant", "Red")]
    assert silent == [("user", "Say nothing."), ("assistant", "")]


def test_dolly_by_category(tmp_path):
    rows = [
        {"instruction": "Who wrote it?", "context": "Emma is by Jane Austen.",
         "response": "Jane Austen", "category": "closed_qa"},
        {"instruction": "Why is it blue?", "context": "", "response": "Air scatters blue.",
         "category": "open_qa"},
    ]  # fmt: skip
    write(tmp_path / "databricks-dolly-15k.jsonl", rows)
    dolly.register(str(tmp_path))
    assert [messages(r) for r in records("dolly", "all")] == [
        [("user", "Who wrote it?\n\nEmma is by Jane Austen."), ("assistant", "Jane Austen")],
        [("user", "Why is it blue?"), ("assistant", "Air scatters blue.")],
    ]
    assert records("dolly_open_qa", "all") == records("dolly", "all")[1:]
    assert len(dolly.CATEGORIES) == 8


def _self_instruct(tmp_path, n=60):
    seeds = [
        {
            "id": f"seed_task_{i}",
            "name": "x",
            "is_classification": False,
            "instruction": f"Shorten it, {i}.",
            "instances": [
                {"input": f"Text: long {{input}} {i}\n\nmore", "output": "short "},
                {"input": "", "output": "none"},
            ],
        }
        for i in range(n)
    ]
    write(tmp_path / "self_instruct" / "seed_tasks.jsonl", seeds)
    generated = [{"instruction": "Count.", "input": "a b", "output": "2"} for _ in range(300)]
    write(tmp_path / "all_instances_82K.jsonl", generated)
    write(tmp_path / "user_oriented_instructions.jsonl", [{"motivation_app": "x", **seeds[0]}])
    self_instruct.register(str(tmp_path))


def test_self_instruct_golden_texts(tmp_path):
    _self_instruct(tmp_path)
    with_input, without = records("self_instruct_user_oriented", "test")
    assert with_input == {
        "inputs": "Shorten it, 0.\n\nText: long {input} 0\n\nmore",
        "targets": "short",
    }
    assert without == {"inputs": "Shorten it, 0.", "targets": "none"}
    layouts = {
        r["inputs"]
        for s in range(60)
        for r in records("self_instruct_seeds", "all", seed=s)
        if "Shorten it, 7." in r["inputs"]
    }
    bare, whole = "long {input} 7\nmore", "Text: long {input} 7\n\nmore"
    expected = {
        layout.replace("{input}", "%s").replace("{instruction}", "Shorten it, 7.") % text
        for layout in self_instruct.WITH_INPUT
        for text in (bare, whole)
    } | {
        layout.replace("{instruction}", "Shorten it, 7.") for layout in self_instruct.WITHOUT_INPUT
    }
    assert layouts == expected and len(expected) == 7 * 2 + 6
    assert "Instruction: Shorten it, 7.\nText: long {input} 7\nmore\nAnswer:" in layouts


def test_self_instruct_draws_and_splits(tmp_path):
    _self_instruct(tmp_path)
    first = records("self_instruct_seeds", "train", seed=1)
    assert first == records("self_instruct_seeds", "train", seed=1)
    assert first != records("self_instruct_seeds", "train", seed=2)
    train, held = (
        {r["inputs"].split(".")[0].split(",")[-1] for r in records(t, s)}
        for t, s in (("self_instruct_seeds", "train"), ("self_instruct_seeds", "validation"))
    )
    assert held and not train & held  # A seed task's instances share a split.
    mixture = seqio.MixtureRegistry.get("self_instruct")
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    assert rates == {"self_instruct_generated": 297, "self_instruct_seeds": 114}


def test_field_names_go_only_where_there_is_one():
    assert self_instruct.without_field_name("Text: a b") == "a b"
    assert self_instruct.without_field_name("A: x\nB: y") == "A: x\nB: y"
    assert self_instruct.without_field_name("Q: x\n\nQ: y") == "x\nQ: y"


@requires_shared
def test_the_real_seeds():
    self_instruct.register(str(SHARED / "data"))
    seeds = records("self_instruct_seeds", "all")
    lines = (SHARED / "data/self_instruct/seed_tasks.jsonl").read_text().splitlines()
    instances = [x for line in lines for x in json.loads(line)["instances"]]
    assert len(lines) == 175 and len(seeds) == len(instances)
    assert [r["targets"] for r in seeds] == [x["output"].strip() for x in instances]
    assert len(records("self_instruct_user_oriented", "test")) == 252


def test_instructgpt_s_length_rules_are_counted(tmp_path, caplog):
    rows = [
        {"prompt": "Write a line.", "completion": "A line."},
        {"prompt": "p" * 4001, "completion": "x"},
        {"prompt": "p", "demonstration": "d" * 4000},
        {"prompt": "p", "demonstration": "d" * 4001},
    ]
    write(tmp_path / "instructgpt" / "train.jsonl", rows)
    write(tmp_path / "instructgpt" / "validation.jsonl", rows[:1])
    instructgpt.register(str(tmp_path))
    found = records("instructgpt", "train")
    assert found[0] == {"inputs": "Write a line.", "targets": "A line."}
    assert [len(r["targets"]) for r in found] == [7, 4000]
    source = seqio.TaskRegistry.get("instructgpt").source
    with caplog.at_level(logging.WARNING):
        assert source.num_input_examples("train") == 2
        assert source.num_input_examples("train") == 2
    assert caplog.text.count("2 of 4 rows of 'train' are left out") == 1
    assert source.num_input_examples("validation") == 1
    instructions = r"put train.parquet or train.jsonl into .*/instructgpt$"
    (tmp_path / "instructgpt" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=instructions):
        records("instructgpt", "train")
