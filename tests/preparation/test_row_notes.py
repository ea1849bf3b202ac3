"""Preparing says what rows are, and what of them was not read or not written; options take them."""

import json
import re

import pytest

from ift_jax.data.batches import BatchPlan
from ift_jax.errors import UserError
from ift_jax.inspection.mixture_tables import show
from ift_jax.preparation.prepare import prepare
from ift_jax.preparation.row_notes import row_notes
from tests.preparation.runs import changed, quiet

N = 30


def row(i, **more):
    turns = [{"from": "human", "value": f"q{i}", "id": i}, {"from": "gpt", "value": f"a{i}"}]
    return {"conversations": turns, "source": "web", "lang": "en" if i % 3 else None, **more}


@pytest.fixture
def run(config, tmp_path):
    """Return a function that prepares rows and returns what it printed, and what is prepared."""

    def prepared(rows, **changes):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        own = {"modules": ("tasks.jsonl",), "root": str(path), "mixture": "jsonl"}
        how = {f"data__{name}": value for name, value in own.items()} | changes
        lines = []
        ours = changed(config, **how)
        return ours, prepare(ours, log=lines.append), lines

    return prepared


def test_the_shape_and_what_nothing_reads_are_printed_and_shown(run, capsys):
    config, prepared, lines = run([row(i) for i in range(N)])
    n = prepared.mixture.stores[0].manifest["records"]
    note = (
        "jsonl_rows: rows are ShareGPT conversations; 3 fields of its rows unused: "
        f"conversations[].id ({n}), source ({n}), lang ("
    )
    assert [line for line in lines if line.startswith(note)]
    show(config, "eval", prepared.mixture, prepared.tokenizer, (), 0)
    assert note in " ".join(capsys.readouterr().out.split())
    # What exists is not told again.
    _, again, lines = run([row(i) for i in range(N)])
    assert not [line for line in lines if "rows are" in line]
    assert list(row_notes("t", again.mixture.stores[0].manifest))[0].startswith("t: rows are Sha")


def test_what_the_template_does_not_write_is_an_error_or_counted(run):
    rows = [row(i) for i in range(N)]
    for k in (3, 7, 8):
        rows[k]["conversations"][1]["reasoning_content"] = "Hm."
    with pytest.raises(UserError) as raised:
        run(rows)
    message = str(raised.value)
    assert (
        f"rows.jsonl:{4}: template 'chatml' does not write messages[1].reasoning_content" in message
    )
    assert message.endswith("(and 2 more like it)")
    _, prepared, lines = run(rows, format__unwritten="leave-out")
    assert "jsonl_rows: the template does not write: reasoning_content (3)" in lines
    _, prepared, _ = run(rows, format__unwritten="drop", data__max_dropped_fraction=0.5)
    assert prepared.mixture.stores[0].manifest["dropped"] == {"unwritten": 3}


def test_what_filters_drop_is_counted_by_reason_and_is_no_fault(run):
    rows = [row(i, license="MIT") for i in range(N)]
    for k, answer in ((3, "I'm Claude."), (5, "<think>So?"), (7, "Again. And again.\n" * 10)):
        rows[k]["conversations"][1]["value"] = answer
    rows[8]["license"] = "cc-by-nc-4.0"
    del rows[9]["license"]
    names = ("identity", "thinking", "repeats", "license")
    _, prepared, lines = run(rows, data__filters=names)
    [store] = prepared.mixture.stores
    assert store.manifest["dropped"] == {
        "filter_identity": 1,
        "filter_unclosed_thinking": 1,
        "filter_repeated_sentence": 1,
        "filter_license": 2,
    }
    assert not [line for line in lines if "license" in line]  # It was read.
    _, prepared, lines = run(rows)
    assert prepared.mixture.stores[0].manifest["dropped"] == {}
    assert [line for line in lines if "license" in line]
    with pytest.raises(UserError, match=r"no example is left to use \(filter_license 28\)"):
        run([row(i) for i in range(N)], data__filters=("license",), data__eval_split="train")


def thoughtful(i):
    """A conversation of two rounds with thoughts, every second one with its own policy."""
    turns = [
        {"role": "user", "content": f"q{i}"},
        {"role": "assistant", "content": f"<think>\nwhy{i}\n</think>\n\na{i}"},
        {"role": "user", "content": f"r{i}"},
        {"role": "assistant", "content": f"<think>\nhow{i}\n</think>\n\nb{i}"},
    ]
    return {"messages": turns} | ({"train_on": "last_round"} if i % 2 else {})


def test_policies_reach_packed_rows_and_what_they_cost_is_shown(run):
    policies = {
        "format__train_thinking": False,
        "format__earlier_thinking": "drop",
        "train__epochs": 1.0,
    }
    config, prepared, lines = run([thoughtful(i) for i in range(N)], **policies)
    [store] = prepared.mixture.stores
    n = store.manifest["records"]
    own = {int(i): sum(store.indices == i) for i in store.indices}
    assert sorted(set(own.values())) == [1, 2] and store.manifest["examples"] == sum(own.values())
    n_split = sum(count == 2 for count in own.values())
    counts = store.manifest["notes"]
    assert counts["thoughts of earlier rounds dropped"] == n
    assert counts["further examples of a conversation"] == n_split
    tokens, repeated = store.manifest["tokens"], counts["context tokens repeated"]
    [line] = [line for line in lines if "further examples of conversations" in line]
    assert f"{n_split} further examples" in line and f"take {tokens - repeated:,}" in line
    assert any("jsonl_rows: by format's policies: thinking tokens masked (" in s for s in lines)
    # In a packed row each answer is trained, and no thought.
    plan = BatchPlan.from_config(config, prepared.mixture)
    seen = ""
    for step in range(plan.n_steps):
        batch = plan.batch(step)
        assert batch["segment_ids"].max() > 1
        trained = batch["targets"][batch["loss_weights"] > 0]
        seen += prepared.tokenizer.decode(trained.tolist(), keep_special=True)
    answers = set(re.findall(r"[ab]\d+(?=<\|im_end\|>)", seen))
    assert len(answers) > n and re.fullmatch(r"(?:[ab]\d+<\|im_end\|>)+", seen)


def test_turns_in_a_bad_order_name_the_option_that_takes_them(run):
    first = {"from": "gpt", "value": "Welcome!"}
    rows = [row(i) for i in range(N)]
    for k in range(10):
        rows[k]["conversations"].insert(0, first)
    with pytest.raises(UserError) as raised:
        run(rows)
    assert "(assistant_first " in str(raised.value)
    assert "; data.drop_leading_assistant=True would take " in str(raised.value)
    _, prepared, _ = run(rows, data__drop_leading_assistant=True)
    assert prepared.mixture.stores[0].manifest["dropped"] == {}


def test_the_options_of_rows_are_those_of_the_config(run):
    rows = [row(i, text=f"t{i}", weight="heavy") for i in range(N)]
    with pytest.raises(UserError, match=r"rows.jsonl:1: row.weight: expected .*and \d+ more like"):
        run(rows)
    _, prepared, lines = run(rows, data__ignore_fields=("weight",))
    assert any("weight (" in line for line in lines)
    _, prepared, lines = run(rows, data__ignore_fields=("weight",), data__schema="text")
    store = prepared.mixture.stores[0]
    assert store.manifest["rows"] == "plain texts, of which every token is trained"
    assert store.manifest["tokens"] == store.manifest["trained_tokens"] + len(store)
    with pytest.raises(UserError, match="config.data.schema|field 'inputs' is missing"):
        run(rows, data__ignore_fields=("weight",), data__schema="inputs_targets")
    assert quiet("") is None
