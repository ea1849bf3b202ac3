"""The items of `--data`: files, folders, patterns and data sets, with or without weights.

Items are separated by commas, and each may end in `=WEIGHT`:

    rows.jsonl
    chats/=2,papers/*.jsonl=1
    hf://owner/name:subset@revision

An item's files are one task, in the order of their names. A file belongs to the split that its
name says ("validation", "valid", "val", "dev", "eval" or "evaluation"; "test"), and to "train"
otherwise. What else lies in a folder is not read, and an item's note says so. So do
the splits of a data set of the Hugging Face hub; one that has a split "train" is trained on it
alone, and `#SPLIT` at its end names another one. A single file rows.jsonl has the file
rows.validation.jsonl beside it for validation, where there is one.
"""

import glob
import os
import re
from collections.abc import Container
from typing import NamedTuple

from ift_jax.errors import UserError, listed
from ift_jax.io import hub_datasets
from ift_jax.io.hub_names import hub_hint

MODULE = "ift_jax.sources.given_data"  # Registers a task for each item.
MIXTURE = "data"  # The mixture of all items.
_WEIGHTED = re.compile(r"(.+)(=[0-9.eE+-]+)")
# The files that ift_jax.sources.row_files reads; .json holds one array, or an object per line.
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".parquet", ".arrow")
# Words in a file's name that say its split.
_SPLIT_WORDS = {
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
}


class Item(NamedTuple):
    """One item of a list of data.

    Attributes:
        text: The item as the user wrote it, without its weight; a data set of the hub has its
            subset and its commit as well.
        files: Split -> absolute paths.
        weight: Its rate in the mixture; None: its number of examples.
        note: What the user should know about it; "" for nothing.
    """

    text: str
    files: dict[str, list[str]]
    weight: float | None
    note: str = ""

    @property
    def name(self) -> str:
        """What the item is called where there is no room for all of it."""
        if self.text.startswith(hub_datasets.SCHEME):
            reference = hub_datasets.parse_reference(self.text)
            parts = (reference.name.rpartition("/")[2], reference.subset, reference.split)
            return "_".join(part for part in parts if part not in ("", "default"))
        stem = os.path.basename(self.text.rstrip("/")) or "data"
        for ending in ENDINGS:
            stem = stem.removesuffix(ending)
        return stem


def parse(text: str) -> list[Item]:
    """Finds the files of each item of a list of data.

    Raises:
        UserError: An item matches no file, a file's ending is unknown, a weight is no positive
            number, only some of the items have weights, an item has nothing to train on, or a data
            set is neither on this machine nor to be had.
    """
    parts = _parts(text)
    if not parts:
        raise UserError(f"--data: expected a file, a folder or a pattern; got {text!r}")
    given = {os.path.abspath(_weighted(part)[0]) for part in parts}
    items = [_item(part, given) for part in parts]
    weighted = [item for item in items if item.weight is not None]
    if weighted and len(weighted) < len(items):
        without = next(item for item in items if item.weight is None)
        raise UserError(
            f"--data: {weighted[0].text} has a weight and {without.text} has none; give all items "
            "a weight, or none"
        )
    return items


def _parts(text: str) -> list[str]:
    """The texts of the items; a path that exists is one, whatever characters are in it."""
    return [text] if os.path.exists(text) else [part for part in text.split(",") if part]


def _item(part: str, given: Container[str]) -> Item:
    """The item of a text; `given` are the paths of all items, which are trained on."""
    path, weight = _weighted(part)
    if path.startswith(hub_datasets.SCHEME):
        return _hub_item(path, weight)
    files: dict[str, list[str]] = {}
    for file in _files(path):
        files.setdefault(split_of(file), []).append(os.path.abspath(file))
    note = _note(path, files)
    if len(files) == 1:
        # What was given alone is trained on, whatever its name is.
        files = {"train": next(iter(files.values()))}
        beside = validation_beside(path)
        if beside and os.path.abspath(beside) not in given:
            files["validation"] = [os.path.abspath(beside)]
    if "train" not in files:
        raise UserError(f"--data: {path}: holds files for {', '.join(files)}, and none to train on")
    return Item(path, files, weight, note)


def _note(path: str, files: dict[str, list[str]]) -> str:
    """Which files of several are not trained on, and what of a folder is not read."""
    parts = []
    if len(files) > 1:
        parts = [
            f"{split}: {listed([os.path.basename(file) for file in of_split])}"
            for split, of_split in files.items()
            if split != "train"
        ]
    if os.path.isdir(path):
        read = {os.path.basename(file) for of_split in files.values() for file in of_split}
        others = sorted(n for n in os.listdir(path) if n not in read and not n.startswith("."))
        if others:
            shown = [n + "/" * os.path.isdir(os.path.join(path, n)) for n in others]
            parts.append(f"not read: {listed(shown)}")
    return f"{path}: {'; '.join(parts)}" if parts else ""


def _hub_item(text: str, weight: float | None) -> Item:
    try:
        dataset = hub_datasets.load(hub_datasets.parse_reference(text))
        files = _hub_splits(dataset, text)
    except UserError as error:
        raise UserError(f"--data: {error}") from error
    used = {path for paths in files.values() for path in paths}
    unread = [split for split, paths in dataset.splits.items() if used.isdisjoint(paths)]
    place = "is in the cache" if dataset.from_cache else "was fetched"
    note = f"{dataset.reference}: {place}"
    if unread:
        note += f"; splits that are not read: {', '.join(unread)}"
    return Item(str(dataset.reference), files, weight, note)


def _hub_splits(dataset: hub_datasets.HubDataset, text: str) -> dict[str, list[str]]:
    """Our splits of a data set, whose own may have other names."""
    splits, wanted = dataset.splits, dataset.reference.split
    there = ", ".join(splits)
    if wanted:
        if wanted not in splits:
            raise UserError(f"{text}: there is no split {wanted!r}; it has {there}")
        return {"train": splits[wanted]}
    if len(splits) == 1:
        return {"train": next(iter(splits.values()))}
    ours: dict[str, list[str]] = {}
    for split in splits:
        ours.setdefault(split_of(split), []).append(split)
    if "train" in splits:
        ours["train"] = ["train"]
    if len(ours.get("train", [])) != 1:
        raise UserError(
            f"{text}: has the splits {there}; expected the one to train on behind it: "
            f"{text}#{next(iter(ours.get('train', splits)))}"
        )
    return {name: [path for split in ours[name] for path in splits[split]] for name in ours}


def _weighted(part: str) -> tuple[str, float | None]:
    """The path of an item, and its weight."""
    path, equals, weight = part.rpartition("=")
    if os.path.exists(part) or not equals:
        return part, None
    return path, _weight(weight, part)


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
        return files_in(path, f"--data: {path}")
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


def files_in(folder: str, place: str) -> list[str]:
    """The files of rows in a folder, in name order, without hidden ones, as in a pattern.

    Raises:
        UserError: There is none; begins with `place`.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(ENDINGS))
    found = [os.path.join(folder, name) for name in names if not name.startswith(".")]
    if not found:
        raise UserError(f"{place}: holds no file that ends in {', '.join(ENDINGS)}")
    return found


def split_of(file: str) -> str:
    """The split that a file's name says: "train", "validation" or "test"."""
    words = re.split(r"[^a-z]+", os.path.basename(file).lower())
    return next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")


def validation_beside(path: str) -> str:
    """The file of validation rows beside a file: rows.validation.jsonl of rows.jsonl; "" if none.

    A file whose own name says another split than "train" has none.
    """
    ending = next((end for end in ENDINGS if path.endswith(end)), "")
    beside = f"{path.removesuffix(ending)}.validation{ending}"
    takes_one = ending and split_of(path) == "train" and os.path.isfile(path)
    return beside if takes_one and os.path.isfile(beside) else ""


def absolute(text: str) -> str:
    """The same items with absolute paths and commits, which mean the same everywhere and always.

    Raises:
        UserError: As `parse`.
    """
    parts = []
    for item in parse(text):
        is_hub = item.text.startswith(hub_datasets.SCHEME)
        weight = "" if item.weight is None else f"={item.weight:g}"
        parts.append((item.text if is_hub else os.path.abspath(item.text)) + weight)
    return ",".join(parts)


def split_items(text: str) -> list[tuple[str, str]]:
    """Return the items of what `absolute` wrote, each with its weight as written ("=2") or ""."""
    return [_without_weight(part) for part in _parts(text)]


def _without_weight(part: str) -> tuple[str, str]:
    match = None if os.path.exists(part) else _WEIGHTED.fullmatch(part)
    return (match[1], match[2]) if match else (part, "")


def is_absolute(text: str) -> bool:
    """Whether each data set of the hub is named with its subset and its commit."""
    paths = [_weighted(part)[0] for part in _parts(text)]
    references = [
        hub_datasets.parse_reference(path) for path in paths if path.startswith(hub_datasets.SCHEME)
    ]
    return all(reference.is_pinned for reference in references)


def is_same(asked: str, absolute_text: str) -> bool:
    """Whether `absolute` may have made a text of what is asked; asks neither cache nor hub.

    Raises:
        UserError: An item is wrong.
    """
    ours, theirs = _parts(asked), _parts(absolute_text)
    return len(ours) == len(theirs) and all(map(_is_same_item, ours, theirs))


def _is_same_item(asked: str, before: str) -> bool:
    path, weight = _weighted(asked)
    path_before, weight_before = _weighted(before)
    if weight != weight_before:
        return False
    if not path.startswith(hub_datasets.SCHEME):
        return os.path.abspath(path) == path_before
    if not path_before.startswith(hub_datasets.SCHEME):
        return False
    reference = hub_datasets.parse_reference(path)
    return reference.allows(hub_datasets.parse_reference(path_before))
