"""Files of rows: what is read, and that every odd row is an error in the user's words."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import seqio
import seqio.test_utils

from ift_jax.errors import UserError
from ift_jax.sources.register import register_rows_task
from ift_jax.sources.row_files_source import RowFilesSource
from ift_jax.text.rows.parse_record import RowOptions


def _write(path, records):
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in records]
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def _read(path, **options):
    return list(RowFilesSource({"train": path}, **options).records("train"))


TOOL = {"type": "function", "function": {"name": "f"}}
CHAT = [{"role": "user", "content": "Hi é\n"}, {"role": "assistant", "content": ""}]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"inputs": "a", "targets": "b"}, {"inputs": "a", "targets": "b"}),
        ({"prompt": "a", "completion": "b"}, {"inputs": "a", "targets": "b"}),
        ({"instruction": "a", "input": "", "output": "b"}, {"inputs": "a", "targets": "b"}),
        ({"instruction": "a", "input": "c", "output": "b"}, {"inputs": "a\n\nc", "targets": "b"}),
        ({"instruction": "a", "output": "b"}, {"inputs": "a", "targets": "b"}),
        (
            {"inputs": "a", "targets": "b", "references": ["b", "ü"]},
            {"inputs": "a", "targets": "b", "references": '["b", "ü"]'},
        ),
        ({"messages": CHAT}, {"messages": json.dumps(CHAT, ensure_ascii=False), "tools": ""}),
        (
            {"messages": json.dumps(CHAT), "tools": [{"name": "f"}]},
            {"messages": json.dumps(CHAT, ensure_ascii=False), "tools": json.dumps([TOOL])},
        ),
    ],
)
@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz"])
def test_layouts(tmp_path, record, expected, name):
    assert _read(_write(tmp_path / name, [record, b"  ", record])) == [expected] * 2


def test_fields_can_be_renamed(tmp_path):
    path = _write(tmp_path / "d.jsonl", [{"q": "2+2?", "a": "4", "all": ["4", "four"]}])
    fields = {"inputs": "q", "targets": "a", "references": "all"}
    expected = {"inputs": "2+2?", "targets": "4", "references": '["4", "four"]'}
    assert _read(path, fields=fields) == [expected]


def test_text_records_can_be_read_as_chat(tmp_path):
    path = _write(tmp_path / "d.jsonl", [{"inputs": "a", "targets": "b"}])
    [record] = _read(path, as_chat=True)
    assert json.loads(record["messages"]) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]


GOOD = {"inputs": "a", "targets": "b"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"inputs": "a", "targets": ', "d.jsonl:3: column 28: "),
        (b"[1]", "d.jsonl:3: the line is a list; expected a JSON object"),
        (b'"a"', "d.jsonl:3: the line is a string"),
        (b'{"inputs": "a"}', "d.jsonl:3: field 'targets' is missing; found 'inputs'"),
        (
            b'{"inputs": 1, "targets": "b"}',
            ":3: field 'inputs': expected a text, found a number",
        ),
        (
            b'{"inputs": null, "targets": "b"}',
            ":3: field 'inputs': expected a text, found null",
        ),
        (b'{"inputs": "a", "inputs": "b", "targets": ""}', "d.jsonl:3: key 'inputs' occurs twice"),
        (b'{"inputs": "\xff", "targets": "b"}', "d.jsonl:3: byte 13 is not valid UTF-8"),
        (
            b'{"inputs": "\\ud800", "targets": "b"}',
            ":3: field 'inputs': expected valid UTF-8 text",
        ),
        (b"[" * 100_000, "d.jsonl:3: nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = _write(tmp_path / "d.jsonl", [GOOD, b"", line, GOOD])
    with pytest.raises(UserError) as caught:
        _read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [[], ["a"], "hello", 3, {}])
def test_messages_must_be_a_list_of_objects(tmp_path, value):
    path = _write(tmp_path / "d.jsonl", [{"messages": CHAT}, {"messages": value}])
    with pytest.raises(UserError, match=r"d.jsonl:2: (field 'messages'|messages\[0\]).*expected a"):
        _read(path)


def test_an_unknown_layout_names_what_there_is_and_what_could_be(tmp_path):
    path = _write(tmp_path / "d.jsonl", [{"question": "a", "answer": "b"}])
    with pytest.raises(UserError, match="d.jsonl:1: .*'question', 'answer'; .*'inputs', 'targets'"):
        _read(path)
    with pytest.raises(UserError, match="expected inputs and targets"):
        RowFilesSource({"train": path}, {"inputs": "question"})


def test_files_must_be_there_and_whole(tmp_path):
    with pytest.raises(UserError, match="no.jsonl: does not exist"):
        RowFilesSource({"train": str(tmp_path / "no.jsonl")})
    with pytest.raises(UserError, match=r"\*.jsonl: no file matches"):
        RowFilesSource({"train": str(tmp_path / "*.jsonl")})
    with pytest.raises(UserError, match="is a folder"):
        RowFilesSource({"train": str(tmp_path)})
    empty = _write(tmp_path / "empty.jsonl", [b" "])
    with pytest.raises(UserError, match="empty.jsonl: holds no row"):
        register_rows_task("test_jsonl_empty", {"train": empty})
    path = tmp_path / "cut.jsonl.gz"
    _write(path, [GOOD] * 1000)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"cut.jsonl.gz:\d+: broken gzip file"):
        _read(str(path))
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b"{}\n")
    with pytest.raises(UserError, match="plain.jsonl.gz:1: broken gzip file"):
        _read(str(plain))


def test_patterns_are_read_in_order_and_counted(tmp_path):
    for k in (2, 1, 3):
        _write(tmp_path / f"part{k}.jsonl", [GOOD | {"inputs": str(k)}] * k)
    source = RowFilesSource({"train": str(tmp_path / "part*.jsonl")})
    assert [r["inputs"] for r in source.records("train")] == list("122333")
    assert source.num_input_examples("train") == 6
    assert source.files("train") == [str(tmp_path / f"part{k}.jsonl") for k in (1, 2, 3)]


def _numbered(n):
    return [{"inputs": str(i), "targets": "b"} for i in range(n)]


def test_shards_partition_the_records(tmp_path):
    source = RowFilesSource({"train": _write(tmp_path / "d.jsonl", _numbered(1300))})
    for i in range(3):
        dataset = source.get_dataset("train", shuffle=False, shard_info=seqio.ShardInfo(i, 3))
        inputs = [example["inputs"].decode() for example in dataset.as_numpy_iterator()]
        assert inputs == [str(k) for k in range(1300) if k % 3 == i]


@pytest.mark.parametrize(("n", "expected"), [(19, None), (20, 1), (4000, 200), (4001, 200)])
def test_validation_is_carved_by_hash(tmp_path, n, expected):
    path = _write(tmp_path / "d.jsonl", _numbered(n))
    source = RowFilesSource({"train": path}, carve_validation=True)
    if expected is None:
        assert source.splits == ("train",)
        return
    train, validation = (
        [int(record["inputs"]) for record in source.records(split)]
        for split in ("train", "validation")
    )
    assert sorted(train + validation) == list(range(n))
    assert len(validation) == expected
    assert len({i % 20 for i in validation}) > 10 or n == 20  # Not every twentieth line.
    # More lines: what was held out of training stays so.
    longer = _write(tmp_path / "longer.jsonl", _numbered(n + 500))
    again = RowFilesSource({"train": longer}, carve_validation=True)
    later = [int(record["inputs"]) for record in again.records("validation")]
    assert later[: len(validation)] == validation


def test_the_fingerprint_follows_content_and_options_alone(tmp_path):
    def fingerprint(path, split="train", **options):
        return RowFilesSource({"train": path}, **options).fingerprint(split)

    a, b, c = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    a, b = (_write(path, _numbered(40)) for path in (a, b))
    c = _write(c, _numbered(41))
    swapped = {"inputs": "targets", "targets": "inputs"}
    assert fingerprint(a) == fingerprint(b)
    carved = [fingerprint(a, split, carve_validation=True) for split in ("train", "validation")]
    different = [fingerprint(a), fingerprint(c), fingerprint(a, fields=swapped), *carved]
    assert len(set(different)) == 5


def test_a_standard_seqio_task_and_mixture(tmp_path):
    """SeqIO's own test helpers, rates and mixing accept what the helper registers."""
    path = _write(tmp_path / "d.jsonl", _numbered(30))
    task = register_rows_task("test_jsonl_standard", {"train": path, "validation": path})
    assert seqio.mixing_rate_num_examples(task) == 30
    dataset = task.get_dataset(split="train", shuffle=False)
    expected = [{"inputs": str(i).encode(), "targets": b"b"} for i in range(30)]
    seqio.test_utils.assert_dataset(dataset, expected)

    rates = [("test_jsonl_standard", seqio.mixing_rate_num_examples)]
    mixture = seqio.MixtureRegistry.add("test_jsonl_mixture", rates)
    mixed = mixture.get_dataset(sequence_length=None, split="train", shuffle=True, num_epochs=1)
    assert {example["inputs"] for example in mixed.as_numpy_iterator()} == {
        example["inputs"] for example in expected
    }
    injected = {"train": {"inputs": "x", "targets": "y"}}
    with seqio.test_utils.DataInjector("test_jsonl_standard", injected):
        dataset = task.get_dataset(split="train", shuffle=False)
        seqio.test_utils.assert_dataset(dataset, [{"inputs": b"x", "targets": b"y"}])


def test_registering_twice(tmp_path):
    first = _write(tmp_path / "a.jsonl", _numbered(3))
    second = _write(tmp_path / "b.jsonl", _numbered(3))
    task = register_rows_task("test_jsonl_twice", {"train": first})
    assert register_rows_task("test_jsonl_twice", {"train": first}) is task
    with pytest.raises(UserError, match="'test_jsonl_twice' is registered already"):
        register_rows_task("test_jsonl_twice", {"train": second})


def test_an_error_inside_tf_data_keeps_its_words(tmp_path):
    source = RowFilesSource({"train": _write(tmp_path / "d.jsonl", [GOOD, {"inputs": "a"}])})
    with pytest.raises(UserError, match="d.jsonl:2: field 'targets'"):
        list(source.get_dataset("train"))
    with pytest.raises(UserError, match="no split 'test'; this source has: train"):
        source.get_dataset("test")


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user"}, CHAT[1]]},
        {"messages": CHAT, "tools": 7},
        {"messages": CHAT, "tools": "[{}]"},
        {"inputs": "a", "targets": "b"},
    ],
)
def test_a_bad_conversation_is_named_by_its_line(tmp_path, record):
    path = _write(tmp_path / "d.jsonl", [{"messages": CHAT}, b"", record])
    with pytest.raises(UserError, match=r"d\.jsonl:3: "):
        _read(path)


ROWS = [
    {"prompt": "a", "completion": "b"},
    {"prompt": "c", "completion": "d", "references": ["e"], "system": "s", "weight": 0.5},
    {"prompt": "f", "completion": "g", "choices": ["g", "h"], "history": [["i", "j"]]},
]


def test_what_only_later_rows_have_is_passed_on(tmp_path):
    source = RowFilesSource({"train": _write(tmp_path / "d.jsonl", ROWS[:2])})
    assert source.fields == ("inputs", "targets")
    [first, second] = source.get_dataset("train").as_numpy_iterator()
    assert second == {
        "inputs": b"c", "targets": b"d", "references": b'["e"]', "system": b"s", "weight": b"0.5"
    }  # fmt: skip
    assert first == {name: b"" for name in second} | {"inputs": b"a", "targets": b"b"}
    source = RowFilesSource({"train": _write(tmp_path / "e.jsonl", [ROWS[0], ROWS[2]])})
    [_, record] = source.parsed("train", "t")
    assert record.choices == ("g", "h")
    assert [m.content for m in record.messages] == ["i", "j", "f", "g"]


@pytest.mark.parametrize(
    "ending", ["jsonl", "json", "array.json", "parquet", "arrow", "feather.arrow"]
)
def test_every_kind_of_file_gives_the_same_records(tmp_path, ending):
    rows = [{"messages": CHAT, "source": "web"}, {"messages": CHAT, "source": "book"}]
    path = tmp_path / f"d.{ending}"
    table = pa.Table.from_pylist(rows)
    if ending == "array.json":
        path.write_text("\ufeff " + json.dumps(rows))
    elif ending == "parquet":
        pq.write_table(table, path)
    elif ending.endswith("arrow"):
        writer = pa.ipc.new_stream if ending == "arrow" else pa.ipc.new_file
        with writer(str(path), table.schema) as file:
            file.write_table(table)
    else:
        _write(path, rows)
    source = RowFilesSource({"train": str(path)})
    assert source.shape == "chat messages" and source.num_input_examples("train") == 2
    records = list(source.parsed("train", "t"))
    assert [record.unread for record in records] == [("source",)] * 2
    assert [m.content for m in records[1].messages] == ["Hi é\n", ""]
    assert records[1].where == (f"{path}:2" if ending in ("jsonl", "json") else f"{path}: row 1")


def test_an_error_says_how_many_more_rows_have_it(tmp_path):
    bad = {"messages": [{"role": "narrator", "content": "a"}]}
    worse = {"messages": [CHAT[0], {"role": "teller", "content": "a"}]}
    path = _write(tmp_path / "d.jsonl", [{"messages": CHAT}, bad, bad, {"messages": 7}, worse])
    source = RowFilesSource({"train": path})
    with pytest.raises(UserError) as raised:
        list(source.parsed("train", "t"))
    message = str(raised.value)
    assert message.startswith(f"{path}:2: messages[0].role: expected one of system, user")
    assert message.endswith("found 'narrator' (and 2 more like it)")


def test_options_say_how_rows_are_read(tmp_path):
    rows = [{"messages": CHAT, "text": "t", "weight": "x"}]
    path = _write(tmp_path / "d.jsonl", rows)
    with pytest.raises(UserError, match="d.jsonl:1: row.weight: expected a number"):
        list(RowFilesSource({"train": path}).parsed("train", "t"))
    options = RowOptions("text", frozenset(("weight",)))
    source = RowFilesSource({"train": path}, options=options)
    [record] = source.parsed("train", "t")
    assert record.is_text and record.unread == ("messages", "weight")
    assert source.fingerprint("train") != RowFilesSource({"train": path}).fingerprint("train")


def test_pairs_of_texts_with_tools_or_options_of_the_template_are_conversations(tmp_path):
    """Such a row was refused, with the words that the first row is another one: it is the first."""
    plain = {"prompt": "a", "completion": "b"}
    for name, given in [("tools", [TOOL]), ("chat_template_kwargs", {"enable_thinking": False})]:
        path = _write(tmp_path / f"{name}.jsonl", [plain | {name: given}, plain])
        source = RowFilesSource({"train": path})
        assert source.fields == ("messages", "tools")
        [first, second] = source.records("train")
        assert json.loads(first[name]) == given
        # An encoder-decoder must not read it as two texts, without the tools.
        assert [record.text_to_text for record in source.parsed("train", "t")] == [False, True]
        assert json.loads(second["messages"]) == [
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        ]  # fmt: skip
    path = _write(tmp_path / "later.jsonl", [plain, plain | {"tools": [TOOL]}])
    with pytest.raises(UserError, match="later.jsonl:2: .* has tools .* put a row like it first"):
        _read(path)
