"""Near duplicates: which rows are left out, against Jaccard similarities by brute force."""

import datetime
import decimal
import json
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ift_jax.errors import UserError
from ift_jax.inspection import near_duplicates

WORDS = [f"w{i}" for i in range(300)]


def chat(text, **more):
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}]
    return {"messages": turns, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def phrases(text):
    words = f"say it {text}".split()
    return {tuple(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def jaccard(a, b):
    return len(phrases(a) & phrases(b)) / len(phrases(a) | phrases(b))


def changed(text, n):
    """A text with n of its last words replaced."""
    words = text.split()
    return " ".join(words[: len(words) - n] + [f"x{i}" for i in range(n)])


def test_rows_are_left_out_as_brute_force_does(tmp_path, capsys):
    pytest.importorskip("datasketch", reason="needs the extra dedup")
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=100)) for _ in range(12)]
    # With 2 of 100 words replaced at the end the similarity is .95; with 60 it is .25.
    near, far = [changed(text, 2) for text in texts[:5]], [changed(text, 60) for text in texts[5:]]
    rows = [*texts, *near, *far, "short", "Short!", "short one"]
    kept = []
    for text in rows:
        words = text.lower().replace("!", "")
        if all(jaccard(words, other.lower().replace("!", "")) < 0.8 for other in kept):
            kept.append(text)
    first = write(tmp_path / "a.jsonl", [chat(text, id=i) for i, text in enumerate(rows[:14])])
    second = write(tmp_path / "b.jsonl", [chat(text) for text in rows[14:]])
    output = tmp_path / "kept"
    near_duplicates.main([first, second, "--output", str(output)])
    found = [json.loads(line) for line in (output / "kept.jsonl").read_text().splitlines()]
    assert [row["messages"][1]["content"] for row in found] == kept
    assert len(kept) == len(rows) - 6
    assert found[0] == chat(texts[0], id=0)
    assert capsys.readouterr().out.splitlines() == [
        f"{first}: 12 rows kept, 2 near duplicates",
        f"{second}: 9 rows kept, 4 near duplicates",
    ]
    with pytest.raises(SystemExit, match="kept: is not empty; name a new folder"):
        near_duplicates.main([first, "--output", str(output)])


def test_without_the_package_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(UserError, match="need datasketch: run launch/setup.sh dedup"):
        near_duplicates.NearDuplicates()
    rows = write(tmp_path / "a.jsonl", [chat("x")])
    with pytest.raises(SystemExit, match="^error: near duplicates need datasketch"):
        near_duplicates.main([rows, "--output", str(tmp_path / "new")])
    assert not (tmp_path / "new").exists()


def test_a_row_of_parquet_is_read_as_training_reads_it_and_written_in_json_types(tmp_path, capsys):
    pytest.importorskip("datasketch", reason="the extra dedup is not installed")
    row = {
        "inputs": decimal.Decimal("1.50"),
        "targets": "x",
        "days": [datetime.date(2020, 1, 2)],
        "image": {"bytes": b"\xff"},
    }
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    near_duplicates.main([str(path), "--output", str(tmp_path / "kept")])
    kept = json.loads((tmp_path / "kept" / "kept.jsonl").read_text())
    assert kept == {
        "inputs": "1.50",
        "targets": "x",
        "days": ["2020-01-02"],
        "image": {"bytes": "b'\\xff'"},
    }
