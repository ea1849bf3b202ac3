"""Data sets of the Hugging Face hub as Arrow files on this machine.

What the package `datasets` has in its cache is used before any network. A data set is known by its
commit there, so that a run reads the same rows again, wherever its branch has moved.
"""

import functools
import importlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_object

SCHEME = "hf://"
EXPECTED = "hf://OWNER/NAME, then :SUBSET, @REVISION and #SPLIT or none of them"
_REFERENCE = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+(?:/[\w.-]+)?)"
    r"(?::(?P<subset>[^:@#/]+))?(?:@(?P<revision>[^@#]+))?(?:#(?P<split>[\w.]+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEFAULT_SUBSET = "default"  # The package's name for the subset of a data set without any.
_DEFAULT_REVISION = "main"
_SECONDS = 30.0  # The hub is asked for a revision for so long.
_SHOWN = 300  # Characters of a reason.


class Reference(NamedTuple):
    """What `hf://owner/name:subset@revision#split` names.

    Attributes:
        name: The data set's name on the hub.
        subset: Its configuration; "" for its default one.
        revision: A branch, tag or commit; "" for the main branch.
        split: The only split to train on; "" for all that have the usual names.
    """

    name: str
    subset: str = ""
    revision: str = ""
    split: str = ""

    def __str__(self) -> str:
        """Return the text that `parse_reference` reads."""
        parts = ((":", self.subset), ("@", self.revision), ("#", self.split))
        return SCHEME + self.name + "".join(mark + part for mark, part in parts if part)

    @property
    def is_pinned(self) -> bool:
        """Whether it names the same rows whatever happens on the hub."""
        return bool(self.subset and _COMMIT.fullmatch(self.revision))

    def allows(self, other: "Reference") -> bool:
        """Whether another reference is this one, or this one with more of it decided."""
        return (
            self.name == other.name
            and self.split == other.split
            and self.subset in ("", other.subset)
            and self.revision in ("", other.revision)
        )


class HubDataset(NamedTuple):
    """A data set on this machine.

    Attributes:
        reference: Its name with the subset and the commit.
        splits: Each of its splits -> the absolute paths of its Arrow files.
        from_cache: Whether it was there already.
    """

    reference: Reference
    splits: dict[str, list[str]]
    from_cache: bool


def parse_reference(text: str) -> Reference:
    """Read a reference.

    Raises:
        UserError: It is none.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UserError(f"{text}: expected {EXPECTED}")
    return Reference(**{name: value or "" for name, value in match.groupdict().items()})


@functools.cache
def load(reference: Reference) -> HubDataset:
    """Find a data set in the cache of the package `datasets`, or have the package fetch it.

    Raises:
        UserError: The package is not installed, the data set, its subset or its revision does not
            exist, or it is not in the cache and the hub cannot be reached.
    """
    for package in ("datasets", "huggingface_hub"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UserError(
                f"{reference}: {package} is not installed ({error}); run launch/setup.sh hf"
            ) from error
    return _in_cache(reference) or _fetched(reference)


def _in_cache(reference: Reference) -> HubDataset | None:
    """The data set, if its rows are in the cache.

    Without a subset only the one of a data set without any is looked for: the cache does not tell
    which of several is the default one.
    """
    folders = _folders(reference.name, reference.subset or _DEFAULT_SUBSET)
    commit = reference.revision or _DEFAULT_REVISION
    if not _COMMIT.fullmatch(commit):
        commit = _cached_commit(reference.name, commit)
    if not commit and not reference.revision:
        commit = next(iter(folders), "")
    splits = _splits(folders[commit]) if commit in folders else None
    if not splits:
        return None
    subset = reference.subset or _DEFAULT_SUBSET
    return HubDataset(reference._replace(subset=subset, revision=commit), splits, from_cache=True)


def _folders(name: str, subset: str) -> dict[str, Path]:
    """The folders of a subset in the cache by their commit, the newest first."""
    found = [
        path for path in (_cache_of(name) / subset).glob("*/*") if _COMMIT.fullmatch(path.name)
    ]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.name: path for path in found}


def _cached_commit(name: str, revision: str) -> str:
    """The commit that a branch or tag had when its files were last fetched; "" if none were."""
    hub = importlib.import_module("huggingface_hub")
    readme = hub.try_to_load_from_cache(name, "README.md", repo_type="dataset", revision=revision)
    return Path(readme).parent.name if isinstance(readme, str) else ""


def _splits(folder: Path) -> dict[str, list[str]] | None:
    """The files of each split in a folder of the cache; None if one of them is missing."""
    naming = importlib.import_module("datasets.naming")
    path = folder / "dataset_info.json"
    if not path.exists():
        return None
    info = read_json_object(path)
    splits = info.get("splits")
    name = info.get("dataset_name")
    if not isinstance(splits, dict) or not isinstance(name, str):
        return None
    files = {
        split: naming.filenames_for_dataset_split(
            str(folder), name, split, "arrow", (fields or {}).get("shard_lengths")
        )
        for split, fields in splits.items()
    }
    return files if all(map(os.path.exists, sum(files.values(), []))) else None


def _fetched(reference: Reference) -> HubDataset:
    """The data set, after the package has fetched it."""
    datasets = importlib.import_module("datasets")
    commit = _commit_on_hub(reference)
    try:
        data = datasets.load_dataset(reference.name, reference.subset or None, revision=commit)
    except Exception as error:  # Whatever the package and its network may raise.
        raise UserError(f"{reference}: {_reason(error)}") from error
    files = {
        split: [os.path.abspath(file["filename"]) for file in rows.cache_files]
        for split, rows in data.items()
    }
    splits = {split: paths for split, paths in files.items() if paths}
    if not splits:
        raise UserError(f"{reference}: has no rows")
    # Where the network fails halfway, the package takes the newest rows in its cache, whatever
    # their revision is.
    other = {Path(path).parent.name for paths in splits.values() for path in paths} - {commit}
    if other:
        raise UserError(
            f"{reference}: the hub stopped answering, and the cache has {', '.join(sorted(other))} "
            f"instead of {commit}; try again"
        )
    subset = next(iter(data.values())).info.config_name
    pinned = reference._replace(subset=subset, revision=commit)
    return HubDataset(pinned, splits, from_cache=False)


def _commit_on_hub(reference: Reference) -> str:
    """Ask the hub for the commit of a revision.

    Raises:
        UserError: There is no such data set or revision, or the hub cannot be reached.
    """
    datasets = importlib.import_module("datasets")
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
    revision = reference.revision or None
    try:
        if datasets.config.HF_HUB_OFFLINE:
            raise UserError("HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set")
        api = hub.HfApi(endpoint=datasets.config.HF_ENDPOINT)
        return str(api.dataset_info(reference.name, revision=revision, timeout=_SECONDS).sha)
    except errors.RevisionNotFoundError:
        raise UserError(f"{reference}: the data set has no revision {revision!r}") from None
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{reference}: there is no such data set on the hub, or it is private or gated; run hf "
            "auth login if you may read it"
        ) from error
    except Exception as error:  # Whatever a network may raise.
        cached = ", ".join(map(str, _cached(reference)))
        raise UserError(
            f"{reference}: is not in the cache of the package datasets "
            f"({datasets.config.HF_DATASETS_CACHE}), and the hub cannot be asked "
            f"({_reason(error)}){cached and f'; the cache has {cached}'}"
        ) from error


def _cached(reference: Reference) -> Iterator[Reference]:
    """What the cache has of a data set instead."""
    for folder in sorted(_cache_of(reference.name).glob("*")):
        for commit in _folders(reference.name, folder.name):
            yield Reference(reference.name, folder.name, commit, reference.split)


def _cache_of(name: str) -> Path:
    """The folder of a data set in the cache: it holds SUBSET/VERSION/COMMIT."""
    datasets = importlib.import_module("datasets")
    naming = importlib.import_module("datasets.naming")
    *owner, tail = name.split("/")
    folder = "___".join((*owner, naming.camelcase_to_snakecase(tail)))
    return Path(os.path.expanduser(datasets.config.HF_DATASETS_CACHE), folder)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:_SHOWN] or type(error).__name__
