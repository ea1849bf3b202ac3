"""A source of ours that no preprocessor changes: the same records as through SeqIO and tf.data."""

import dataclasses
import json

import pytest
import seqio

from ift_jax.errors import UserError
from ift_jax.preparation.read_examples import Reading, text_records
from ift_jax.sources.features import CHAT_FEATURES, TEXT_FEATURES
from ift_jax.sources.row_files_source import RowFilesSource

pytestmark = pytest.mark.usefixtures("own_registry")

ASKED = {"role": "user", "content": "caf\u00e9 \U0001f600 \\u0041"}
CALL = {"function": {"name": "f", "arguments": {"x": [1, 1e300, None, {"y": "\u2028"}]}}}
DETAIL = [{"begin_offset": 1, "end_offset": 2, "train": True}]
CHATS = [
    {"messages": [ASKED, {"role": "assistant", "content": str(i), "weight": i % 2 / 2}]}
    for i in range(7)
] + [
    {"messages": json.dumps([ASKED]), "tools": [{"name": "f", "null": None}]},
    {"messages": [ASKED], "chat_template_kwargs": {"a": [None, False]}, "weight": 0.5},
    {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "d"}]},
            ASKED,
            {"role": "assistant", "content": "abc", "reasoning": "t", "train_detail": DETAIL},
        ]
    },
    {"messages": [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
]
TEXTS = [{"inputs": f"\n{i} ", "targets": "\u00e9" * i, "references": ["a"] * i} for i in range(9)]
TEXTS += [
    {"inputs": "a", "targets": "b", "system": "s", "history": [["c", "d"]], "weight": 0.25},
    {"inputs": "a", "targets": "b", "choices": ["b", "c"], "train": False},
]


def _comparable(record):
    """A record without its place, and without the names of what nothing read.

    SeqIO knows no lines, and passes on what a task's features name.
    """
    return dataclasses.replace(record, where="", unread=())


def both(source, split="train", n_shards=2, seed=3):
    """Each shard's records directly, and through an identity preprocessor; or the errors."""
    features = CHAT_FEATURES if "messages" in source.fields else TEXT_FEATURES
    found = []
    for preprocessors in ([], [lambda dataset: dataset]):
        seqio.TaskRegistry.remove("own") if "own" in seqio.TaskRegistry.names() else None
        task = seqio.TaskRegistry.add(
            "own", source=source, preprocessors=preprocessors, output_features=features
        )
        try:
            readings = [Reading(task, split, k, n_shards, seed) for k in range(n_shards)]
            found.append([list(map(_comparable, text_records(reading))) for reading in readings])
        except UserError as error:
            found.append(str(error))
    return found


def lines(path, records, ascii_=True):
    path.write_text("".join(json.dumps(r, ensure_ascii=ascii_) + "\n" for r in records))
    return RowFilesSource({"train": str(path)})


@pytest.mark.parametrize("ascii_", [True, False])
@pytest.mark.parametrize("records", [CHATS, TEXTS], ids=["chat", "text"])
def test_json_lines(tmp_path, monkeypatch, records, ascii_):
    path = tmp_path / "made.jsonl"
    source = lines(path, records, ascii_)
    direct, through = both(source)
    assert direct == through
    monkeypatch.setattr(source, "get_dataset", None)  # No tf.data where it is not needed.
    task = seqio.TaskRegistry.get("own").replace(preprocessors=[])
    found = list(text_records(Reading(task, "train", 0, 2, 3)))
    assert [r.where for r in found] == [f"{path}:{i + 1}" for i in range(0, len(records), 2)]
    assert list(map(_comparable, found)) == direct[0]


def test_carved_validation_and_chat_of_text(tmp_path):
    path = tmp_path / "made.jsonl"
    lines(path, [{"inputs": f"{i}", "targets": "x"} for i in range(60)])
    for as_chat in (False, True):
        source = RowFilesSource({"train": str(path)}, carve_validation=True, as_chat=as_chat)
        for split, n in (("train", 57), ("validation", 3)):
            direct, through = both(source, split)
            assert direct == through and sum(map(len, direct)) == n


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(CHATS[:7]), tmp_path / "made.parquet")
    files = {"train": str(tmp_path / "made.parquet")}
    direct, through = both(RowFilesSource(files, {"messages": "messages"}))
    assert direct == through and len(direct[0]) == 4


@pytest.mark.parametrize("line", [
    '{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    '{"messages": "[{\\"role\\": \\"user\\", \\"content\\": \\"\\\\ud83d\\"}]"}',
    '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
    '{"messages": [{"role": "user", "contents": "a"}]}',
    '{"messages": [{"role": "user"}]}',
    '{"messages": [{"role": "robot", "content": "a"}]}',
    '{"messages": [{"role": "user", "content": 1}]}',
    '{"messages": [{"role": "user", "content": "a", "weight": -1}]}',
    '{"messages": [3]}', '{"messages": []}', '{"messages": 3}', '{"text": "a"}', '[', '"a"',
    '{"messages": [{"role": "user", "content": "a"}], "tools": "[{}]"}',
    '{"messages": [{"role": "user", "content": "a"}], "tools": [3]}',
])  # fmt: skip
def test_errors_name_the_line(tmp_path, line):
    path = tmp_path / "made.jsonl"
    path.write_text(json.dumps(CHATS[0]) + "\n" + line + "\n")
    direct, through = both(RowFilesSource({"train": str(path)}), n_shards=1)
    assert isinstance(direct, str) and direct == through
    assert direct.startswith(f"{path}:2: ")
