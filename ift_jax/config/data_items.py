"""The items of `--data`: files, folders and patterns, with or without weights.

Items are separated by commas, and each may end in `=WEIGHT`:

    rows.jsonl
    chats/=2,papers/*.jsonl=1

An item's files are one task, in the order of their names. A file belongs to the split that its
name says ("validation", "valid", "val", "dev" or "eval"; "test"), and to "train" otherwise.
"""

import glob
import os
import re
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.hub_names import hub_hint

MODULE = "ift_jax.sources.given_data"  # Registers a task for each item.
MIXTURE = "data"  # The mixture of all items.
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow")
# Words in a file's name that say its split.
_SPLIT_WORDS = {
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
}


class Item(NamedTuple):
    """One item of a list of data.

    Attributes:
        text: The item as the user wrote it, without its weight.
        files: Split -> absolute paths.
        weight: Its rate in the mixture; None: its number of examples.
    """

    text: str
    files: dict[str, list[str]]
    weight: float | None


def parse(text: str) -> list[Item]:
    """Finds the files of each item of a list of data.

    Raises:
        UserError: An item matches no file, a file's ending is unknown, a weight is no positive
            number, only some of the items have weights, or an item has nothing to train on.
    """
    if not text:
        raise UserError("--data: expected a file, a folder or a pattern")
    # A path that exists is taken as it is, whatever characters are in it.
    parts = [text] if os.path.exists(text) else [part for part in text.split(",") if part]
    items = [_item(part) for part in parts]
    weighted = [item for item in items if item.weight is not None]
    if weighted and len(weighted) < len(items):
        without = next(item for item in items if item.weight is None)
        raise UserError(
            f"--data: {weighted[0].text} has a weight and {without.text} has none; give all items "
            "a weight, or none"
        )
    return items


def _item(part: str) -> Item:
    path, equals, weight_text = part.rpartition("=")
    if os.path.exists(part) or not equals:
        path, weight = part, None
    else:
        weight = _weight(weight_text, part)
    files: dict[str, list[str]] = {}
    for file in _files(path):
        files.setdefault(split_of(file), []).append(os.path.abspath(file))
    if len(files) == 1:
        # What was given alone is trained on, whatever its name is.
        files = {"train": next(iter(files.values()))}
    if "train" not in files:
        raise UserError(f"--data: {path}: holds files for {', '.join(files)}, and none to train on")
    return Item(path, files, weight)


def _weight(text: str, part: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError(f"--data: {part}: expected a positive number after '='; got {text!r}")
    return weight


def _files(path: str) -> list[str]:
    """The files of a file, a folder (without those in its folders) or a pattern, in name order."""
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if name.endswith(ENDINGS))
        if not names:
            raise UserError(f"--data: {path}: holds no file that ends in {', '.join(ENDINGS)}")
        return [os.path.join(path, name) for name in names]
    if os.path.exists(path):
        found = [path]
    else:
        found = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    if not found:
        raise UserError(
            f"--data: {path}: no such file or folder, and no file matches it"
            f"{hub_hint(path, is_data=True)}"
        )
    for file in found:
        if not file.endswith(ENDINGS):
            raise UserError(f"--data: {file}: expected a file that ends in {', '.join(ENDINGS)}")
    return found


def split_of(file: str) -> str:
    """The split that a file's name says: "train", "validation" or "test"."""
    words = re.split(r"[^a-z]+", os.path.basename(file).lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")


def absolute(text: str) -> str:
    """The same items with absolute paths, which mean the same in every working folder.

    Raises:
        UserError: As `parse`.
    """
    parts = []
    for item in parse(text):
        weight = "" if item.weight is None else f"={item.weight:g}"
        parts.append(os.path.abspath(item.text) + weight)
    return ",".join(parts)
