r"""Leaves near duplicates out of files of rows, by MinHash and locality-sensitive hashing.

    python -m ift_jax.inspection.near_duplicates chats.jsonl more.parquet --output kept

Two rows are near duplicates if the sets of five words in a row of all their turns have a Jaccard
similarity of at least --threshold, as MinHash estimates it. Of near duplicates the first row is
kept, in the order of the files. The kept rows are written as they were read, so `tasks.jsonl` or
--data reads the output. The hashing is that of the package datasketch (extra dedup).
"""

import argparse
import collections
import importlib
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.io.files import append_json_lines
from ift_jax.io.folders import new_folder
from ift_jax.io.outputs import new_output
from ift_jax.sources.row_files import StoredRow, read_rows
from ift_jax.sources.row_values import json_value
from ift_jax.text.rows.parse_record import parse_record

THRESHOLD = 0.8
N = 5  # Words in a row.
PERMUTATIONS = 128
_SEED = 1
_TOGETHER = 10_000  # Rows that are written at a time.
_OUTPUT_FILE = "kept.jsonl"


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        file: The file.
        fields: What it holds.
        text: What its turns say.
    """

    file: str
    fields: dict[str, Any]
    text: str


class NearDuplicates:
    """Tells whether a text is nearly the same as one before it."""

    def __init__(self, threshold: float = THRESHOLD, n: int = N):
        """Begin with no text.

        Args:
            threshold: The least Jaccard similarity of near duplicates.
            n: Words in a row that make an element of a text's set.

        Raises:
            UserError: The package is not installed.
        """
        try:
            self._datasketch = importlib.import_module("datasketch")
        except ImportError:
            raise UserError("near duplicates need datasketch: run launch/setup.sh dedup") from None
        self._threshold = threshold
        self._n = n
        self._index = self._datasketch.MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
        self._hashes: dict[int, Any] = {}

    def is_new(self, text: str) -> bool:
        """Return whether no earlier new text is nearly the same, and remember this one if so."""
        words = re.findall(r"\w+", text.lower())
        starts = range(max(len(words) - self._n + 1, 1))
        phrases = {" ".join(words[start : start + self._n]) for start in starts}
        hashed = self._datasketch.MinHash(num_perm=PERMUTATIONS, seed=_SEED)
        hashed.update_batch([phrase.encode() for phrase in sorted(phrases)])
        for candidate in self._index.query(hashed):
            if self._hashes[candidate].jaccard(hashed) >= self._threshold:
                return False
        key = len(self._hashes)
        self._hashes[key] = hashed
        self._index.insert(key, hashed)
        return True


def rows_of(files: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of files of JSON lines, JSON, Parquet, or Arrow.

    Raises:
        UserError: A file cannot be read, or a row is none that `--data` takes.
    """
    for file in files:
        for stored in read_rows(file):
            yield _row(file, stored)


def _row(file: str, stored: StoredRow) -> Row:
    fields = json_value(stored.fields())
    record = parse_record(fields, stored.place)
    parts = [(message.reasoning_content, message.content) for message in record.messages]
    return Row(file, fields, "\n".join(itertools.chain.from_iterable(parts)))


def kept_rows(
    rows: Iterator[Row], near: NearDuplicates, counts: "collections.Counter[tuple[str, bool]]"
) -> Iterator[dict[str, Any]]:
    """Yield the fields of rows that are no near duplicates; count both kinds by file."""
    for row in rows:
        is_new = near.is_new(row.text)
        counts[row.file, is_new] += 1
        if is_new:
            yield row.fields


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m ift_jax.inspection.near_duplicates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="rows, as --data takes them")
    parser.add_argument("--output", required=True, metavar="DIR", help="a new folder to write into")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="default: 0.8")
    args = parser.parse_args(arguments)
    if not 0 < args.threshold <= 1:
        parser.error(f"--threshold: expected more than 0 and at most 1; got {args.threshold}")
    try:
        with new_output(args.output, "--output"):
            _run(args)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


def _run(args: argparse.Namespace) -> None:
    near = NearDuplicates(args.threshold)
    counts = collections.Counter[tuple[str, bool]]()
    with new_folder(args.output, "--output") as temporary:
        kept = kept_rows(rows_of(args.files), near, counts)
        while together := list(itertools.islice(kept, _TOGETHER)):
            append_json_lines(f"{temporary}/{_OUTPUT_FILE}", together)
    for file in args.files:
        print(f"{file}: {counts[file, True]:,} rows kept, {counts[file, False]:,} near duplicates")


if __name__ == "__main__":
    main()
