"""OpenAssistant's trees, and conversations in ShareGPT's format."""

import json

import pytest
import seqio

from ift_jax.errors import UserError
from tasks import open_assistant, sharegpt
from tests.shared_data import SHARED, requires_shared
from tests.sources.dataset_files import messages, records, write

pytestmark = pytest.mark.usefixtures("own_registry")


def _node(text, role, replies=(), **fields):
    return {"text": text, "role": role, "lang": "en", "replies": list(replies), **fields}


def _trees():
    """Return trees: a question with two answers, the better one with two further questions."""
    deeper = [
        _node("q2", "prompter", [_node("a2", "assistant", rank=0)], rank=1),
        _node("q3", "prompter", [], rank=0),
        _node("q4", "prompter", [_node("a4", "assistant", rank=0)], rank=2),
    ]
    answers = [
        _node("worse", "assistant", rank=1),
        _node("better", "assistant", deeper, rank=0),
        _node("gone", "assistant", [_node("q", "prompter")], deleted=True),
        _node("bad", "assistant", review_result=False),
    ]
    german = _node("Frage", "prompter", [_node("Antwort", "assistant", lang="de")], lang="de")
    lonely = _node("nobody answered", "prompter")
    prompts = [_node("q1", "prompter", answers), german, lonely]
    return [{"message_tree_id": str(i), "prompt": prompt} for i, prompt in enumerate(prompts)]


def _texts(record):
    return [(m["content"], m.get("weight")) for m in json.loads(record["messages"])]


def test_every_path_once_and_every_answer_trained_once(tmp_path):
    write(tmp_path / "2023-04-12_oasst_ready.trees.jsonl.gz", _trees())
    open_assistant.register(str(tmp_path))
    assert [_texts(r) for r in records("open_assistant", "all")] == [
        [("q1", None), ("worse", None)],
        [("q1", None), ("better", None), ("q2", None), ("a2", None)],
        [("q1", None), ("better", 0), ("q4", None), ("a4", None)],
        [("Frage", None), ("Antwort", None)],
    ]
    assert len(records("open_assistant_en", "all")) == 3
    roles = [role for role, _ in messages(records("open_assistant", "all")[1])]
    assert roles == ["user", "assistant"] * 2


def test_the_best_path_follows_the_ranks(tmp_path):
    write(tmp_path / "oasst_tree.jsonl", _trees())
    open_assistant.register(str(tmp_path))
    # The best question, q3, has no answer, so the conversation ends before it.
    assert [_texts(r) for r in records("open_assistant_best", "all")] == [
        [("q1", None), ("better", None)],
        [("Frage", None), ("Antwort", None)],
    ]
    assert len(records("open_assistant_best_en", "all")) == 1


def test_messages_with_parents_give_the_same_conversations(tmp_path):
    flat = []

    def lay(node, parent):
        name = f"id{len(flat)}"
        fields = {k: v for k, v in node.items() if k != "replies"}
        flat.append(
            {
                "message_id": name,
                "parent_id": parent,
                "rank": None,
                "deleted": False,
                "review_result": True,
            }
            | fields
        )
        for reply in node["replies"]:
            lay(reply, name)

    for tree in _trees():
        lay(tree["prompt"], None)
    write(tmp_path / "trees" / "oasst_tree.jsonl", _trees())
    write(tmp_path / "oasst1" / "train.parquet", flat[::-1])  # Children before their parents.
    names = ("open_assistant", "open_assistant_best")
    open_assistant.register(str(tmp_path / "trees"))
    expected = [sorted(json.dumps(_texts(r)[::2]) for r in records(n, "all")) for n in names]
    for name in [n for n in seqio.TaskRegistry.names() if n.startswith("open_assistant")]:
        seqio.TaskRegistry.remove(name)
    open_assistant.register(str(tmp_path))
    found = [sorted(json.dumps(_texts(r)[::2]) for r in records(n, "all")) for n in names]
    assert found == expected


@requires_shared
def test_the_real_trees():
    open_assistant.register(str(SHARED / "data" / "chat"))
    found = records("open_assistant", "all")
    threads = [
        json.loads(line)["messages"] for line in (SHARED / "data/chat/oasst_messages.jsonl").open()
    ]
    expected = {json.dumps([(m["role"], m["content"]) for m in thread]) for thread in threads}
    ours = [json.dumps(messages(r)) for r in found]
    # The file of threads also has those that end before a question that was never answered, if
    # another question at the same place was. They are beginnings of longer threads, so they add
    # nothing.
    more = expected - set(ours)
    assert (len(threads), len(ours), len(more)) == (564, 546, 18) and set(ours) < expected
    assert all(any(text.startswith(thread[:-1]) for text in ours) for thread in more)
    best = records("open_assistant_best", "all")
    assert len(best) == 100 and {json.dumps(messages(r)) for r in best} <= expected
    trained = [
        m
        for r in found
        for m in json.loads(r["messages"])
        if m["role"] == "assistant" and "weight" not in m
    ]
    answers = sum(
        line.count('"role": "assistant"')
        for line in (SHARED / "data/chat/oasst_en_100_tree.jsonl").open()
    )
    assert len(trained) == answers


def test_sharegpt_golden_records(tmp_path):
    rows = [
        {"id": "1", "conversations": [
            {"from": "gpt", "value": "left over"}, {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"day": 1}}'},
            {"from": "observation", "value": '{"sky": "blue"}'},
            {"from": "gpt", "value": "Blue."}, {"from": "human", "value": "Thanks"}],
         "tools": '[{"name": "weather"}]'},
        {"id": "2", "conversations": [{"from": "human", "value": "Anyone?"}]},
    ]  # fmt: skip
    write(tmp_path / "my-chats.json", rows)
    assert sharegpt.register(str(tmp_path)) == ("sharegpt_my_chats",)
    assert sharegpt.register(str(tmp_path)) == ("sharegpt_my_chats",)
    [record, unanswered] = records("sharegpt_my_chats", "all")
    assert json.loads(record["tools"]) == [{"type": "function", "function": {"name": "weather"}}]
    assert [m["role"] for m in json.loads(unanswered["messages"])] == ["user"]
    call = {"type": "function", "function": {"name": "weather", "arguments": '{"day": 1}'}}
    assert json.loads(record["messages"]) == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "observation", "content": '{"sky": "blue"}'},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "Thanks"},
    ]
    with pytest.raises(UserError, match=r"holds no .json file"):
        sharegpt.register(str(tmp_path / "none"))
    rows[0]["conversations"][1]["from"] = "martian"
    write(tmp_path / "my-chats.json", rows)
    with pytest.raises(
        UserError, match="row 0: conversations\\[1\\].from: expected one of .*'martian'"
    ):
        records("sharegpt_my_chats", "all")


@requires_shared
def test_real_conversations():
    names = sharegpt.register(str(SHARED / "data" / "chat"))
    assert names == ("sharegpt_glaive_toolcall_en_demo", "sharegpt_vicuna_dummy_conversation")
    tools, plain = (records(name, "all") for name in names)
    assert (len(tools), len(plain)) == (100, 150)
    calls = sum("tool_calls" in m for r in tools for m in json.loads(r["messages"]))
    assert calls == 73 and all(r["tools"] == "" for r in plain)
