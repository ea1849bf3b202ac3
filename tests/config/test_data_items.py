"""The items of --data: files, folders, patterns, splits and weights."""

import pytest

from ift_jax.config import data_items
from ift_jax.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b,c=2.jsonl", "many/part-0.jsonl", "many/part-1.jsonl.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    for name in (
        "train-0.jsonl",
        "my_dev.jsonl",
        "test-0.jsonl",
        "evaluate.jsonl",
        "evaluation.jsonl",
    ):
        (tmp_path / "split").mkdir(exist_ok=True)
        (tmp_path / "split" / name).write_text("{}\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "many" / "._part-0.jsonl").write_bytes(b"\0")  # As macOS leaves it.
    return tmp_path


def names(item):
    return {
        split: [path.rpartition("/")[2] for path in paths] for split, paths in item.files.items()
    }


def test_files_folders_and_patterns(folder):
    file, many, pattern = data_items.parse("a.jsonl,many,many/*0.jsonl")
    assert names(file) == {"train": ["a.jsonl"]}
    assert names(many) == {"train": ["part-0.jsonl", "part-1.jsonl.gz"]}
    assert names(pattern) == {"train": ["part-0.jsonl"]}
    assert [item.weight for item in (file, many, pattern)] == [None, None, None]


def test_a_file_name_says_the_split(folder):
    (item,) = data_items.parse("split")
    assert names(item) == {
        "train": ["evaluate.jsonl", "train-0.jsonl"],
        "validation": ["evaluation.jsonl", "my_dev.jsonl"],
        "test": ["test-0.jsonl"],
    }
    (alone,) = data_items.parse("split/test-0.jsonl")
    assert names(alone) == {"train": ["test-0.jsonl"]}


def test_what_of_a_folder_is_not_read_or_not_trained_on_is_noted(folder):
    for name in ("notes.csv", "README.md", ".gitattributes", *(f"z{i}.txt" for i in range(4))):
        (folder / "many" / name).write_text("x")
    (folder / "many" / "more").mkdir()
    many, split, file = data_items.parse("many,split,a.jsonl")
    assert many.note == "many: not read: README.md, more/, notes.csv, z0.txt, z1.txt and 2 more"
    assert split.note == "split: validation: evaluation.jsonl, my_dev.jsonl; test: test-0.jsonl"
    assert file.note == ""
    (pattern,) = data_items.parse("split/*.jsonl")
    assert pattern.note == split.note.replace("split:", "split/*.jsonl:", 1)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_one_file_takes_the_validation_file_beside_it(folder, ending):
    for name in (f"z.{ending}", f"z.validation.{ending}"):
        (folder / name).write_text("{}\n")
    rows, other = data_items.parse(f"z.{ending}=2,a.jsonl=1")
    assert names(rows) == {"train": [f"z.{ending}"], "validation": [f"z.validation.{ending}"]}
    assert names(other) == {"train": ["a.jsonl"]}
    alone, itself = data_items.parse(f"z.{ending},z.validation.{ending}")
    assert names(alone) == {"train": [f"z.{ending}"]}  # What is named is trained on.
    assert names(itself) == {"train": [f"z.validation.{ending}"]}


def test_weights(folder):
    assert [item.weight for item in data_items.parse("a.jsonl=2,many=.5")] == [2.0, 0.5]


def test_a_path_that_exists_is_taken_as_it_is(folder):
    (item,) = data_items.parse("b,c=2.jsonl")
    assert names(item) == {"train": ["b,c=2.jsonl"]}
    assert item.weight is None


def test_absolute_means_the_same_elsewhere(folder, monkeypatch):
    text = data_items.absolute("a.jsonl=2,many=1")
    before = data_items.parse("a.jsonl=2,many=1")
    monkeypatch.chdir("/")
    assert [item.files for item in data_items.parse(text)] == [item.files for item in before]
    assert [item.weight for item in data_items.parse(text)] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a file, a folder or a pattern"),
        (",", "expected a file, a folder or a pattern; got ','"),
        ("none.jsonl", "none.jsonl: no such file or folder, and no file matches it"),
        ("*.none", "no file matches it"),
        ("notes.txt", "notes.txt: expected a file that ends in"),
        ("empty", "empty: holds no file that ends in"),
        ("a.jsonl=0", "expected a positive number after '='; got '0'"),
        ("a.jsonl=nan", "expected a positive number after '='; got 'nan'"),
        ("a.jsonl=2,many", "a.jsonl has a weight and many has none"),
    ],
)
def test_a_mistake_is_named(folder, text, expected):
    with pytest.raises(UserError) as error:
        data_items.parse(text)
    assert expected in str(error.value)
