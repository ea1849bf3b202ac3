"""What commands leave, compared with what the same commands leave that nobody killed."""

import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.io.json_reader import parse_json

# Files of a run whose content is compared in another way, or that only repeat others.
_OTHERWISE = (
    "checkpoints/",
    "tensorboard/",
    "metrics.jsonl",
    "checkpoints.json",
    "goodput.jsonl",
    "report.html",
)


def files_of(folder: Path, below: str = "") -> list[str]:
    """Return the relative names of the files in a folder, or in a part of it."""
    return sorted(
        str(path.relative_to(folder)) for path in (folder / below).rglob("*") if path.is_file()
    )


def json_of(path: Path) -> Any:
    """Return what a JSON file holds, strictly read."""
    return parse_json(path.read_bytes(), str(path))


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder, with the times of its files."""
    shutil.copytree(source, target, dirs_exist_ok=True)


def assert_same_names(folder: Path, expected: Path, ignored: Sequence[str] = ()) -> None:
    """Check that a folder has the files of another, and nothing else."""

    def names(of: Path) -> set[str]:
        return {name for name in files_of(of) if not name.startswith(tuple(ignored))}

    missing = sorted(names(expected) - names(folder))
    surplus = sorted(names(folder) - names(expected))
    assert not missing and not surplus, f"missing {missing}, surplus {surplus} in {folder}"
    folders = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_dir()}
    wanted = {str(path.relative_to(expected)) for path in expected.rglob("*") if path.is_dir()}
    surplus = sorted(name for name in folders - wanted if not f"{name}/".startswith(tuple(ignored)))
    assert not surplus, f"surplus folders {surplus} in {folder}"


def assert_same_files(folder: Path, expected: Path, names: Iterable[str]) -> None:
    """Check that files have the same bytes, but for the names of the two folders in them."""
    for name in names:
        assert (folder / name).exists(), f"{name} is missing"
        ours = (folder / name).read_bytes().replace(bytes(folder), b"FOLDER")
        theirs = (expected / name).read_bytes().replace(bytes(expected), b"FOLDER")
        if ours != theirs:
            pairs = zip(ours, theirs, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
            raise AssertionError(
                f"{name}: {len(ours)} bytes, expected {len(theirs)}; differs from byte {at} on: "
                f"{ours[at : at + 80]!r}, expected {theirs[at : at + 80]!r}"
            )


def arrays_of(workdir: Path, step: int) -> list[np.ndarray]:
    """Return the arrays of a checkpoint in a fixed order: parameters, optimizer state and all."""
    checkpoints = Checkpoints(str(workdir), read_only=True)
    try:
        state = checkpoints._manager.restore(step)
    finally:
        checkpoints.close()
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def steps_of(workdir: Path) -> set[int]:
    """Return the steps of the checkpoints of a workdir."""
    return {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()}


def assert_same_arrays(workdir: Path, expected: Path) -> None:
    """Check that two workdirs' newest checkpoints, and all others in both, are the same bits."""
    steps, wanted = steps_of(workdir), steps_of(expected)
    assert max(steps) == max(wanted), f"checkpoints {sorted(steps)}, expected {sorted(wanted)}"
    for step in steps & wanted:
        ours, theirs = arrays_of(workdir, step), arrays_of(expected, step)
        assert len(ours) == len(theirs) > 0
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            assert same, f"checkpoint {step}: array {place} of {len(ours)} differs"


def metrics_of(workdir: Path) -> list[dict[str, Any]]:
    """Return the records of `metrics.jsonl` without times."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\n") for line in lines), f"{path}: a line is cut off"
    records = [parse_json(line, str(path)) for line in lines]
    return [{name: v for name, v in record.items() if name != "time"} for record in records]


def check_goodput(workdir: Path) -> None:
    """Check that `goodput.jsonl` counts on: a later step has no fewer seconds of any kind."""
    path = workdir / "goodput.jsonl"
    records = [parse_json(line, str(path)) for line in path.read_bytes().splitlines()]
    assert records, f"{path} is empty"
    for earlier, later in itertools.pairwise(records):
        assert later["step"] >= earlier["step"], f"{path}: step {later['step']} comes too late"
        for kind, seconds in earlier["seconds"].items():
            assert later["seconds"][kind] >= seconds, f"{path}: {kind} falls at {later['step']}"


def check_run(folder: Path, expected: Path, name: str = "out/run", stops: bool = True) -> None:
    """Check that a run left what the uninterrupted one did, each line once.

    Args:
        folder: The trial's folder.
        expected: That of the run without a kill.
        name: The workdir in both.
        stops: Whether the run may have been stopped, and have saved where it was.
    """
    workdir, wanted = folder / name, expected / name
    assert_same_names(workdir, wanted, ignored=("checkpoints/", "tensorboard/"))
    same = [file for file in files_of(wanted) if not file.startswith(_OTHERWISE)]
    assert_same_files(folder, expected, [f"{name}/{file}" for file in same])
    assert_same_records(metrics_of(workdir), metrics_of(wanted))
    check_goodput(workdir)
    ratings, wanted_ratings = (json_of(of / "checkpoints.json") for of in (workdir, wanted))
    assert ratings.items() >= wanted_ratings.items(), "other ratings in checkpoints.json"
    surplus = {path.name for path in (workdir / "checkpoints").iterdir() if not path.name.isdigit()}
    assert not surplus, f"left over in checkpoints: {surplus}"
    if not stops:
        assert steps_of(workdir) == steps_of(wanted), "other checkpoints were kept"
    assert_same_arrays(workdir, wanted)


def assert_same_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Check that two lists of records are equal; say where they are not."""
    for place, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        assert a == b, f"record {place} is {json.dumps(a)}, expected {json.dumps(b)}"
    assert len(ours) == len(theirs), f"{len(ours)} records, expected {len(theirs)}"


def check_stores(stores: Path, expected: Path) -> None:
    """Check that folders of stores hold the same stores, tokenizers and notes, and nothing else."""
    assert_same_names(stores, expected)
    files = files_of(expected)
    of_this_folder = ("requests/", "verified/")  # They hold times and paths of files.
    assert_same_files(stores, expected, [f for f in files if not f.startswith(of_this_folder)])
    for name in files:
        ours, theirs = (
            json_of(of / name) if name.startswith(of_this_folder) else {}
            for of in (stores, expected)
        )
        assert ours.keys() == theirs.keys(), name
        for field in ours.keys() & {"tasks", "left_out", "version", "data_files"}:
            assert ours[field] == theirs[field], f"{name}: {field}"
