"""The supervised mixtures of Tulu 2 (arXiv:2311.10702) and Tulu 3 (arXiv:2411.15124), by source.

`register(root)` registers a task for each source of a release, `tulu2_<source>` or
`tulu3_<source>`, and the mixtures `tulu2_sft` and `tulu3_sft` of them, in proportion to their
sizes: one epoch is every row once. Rows (messages, and the column that names the source) come from
allenai/tulu-v2-sft-mixture and allenai/tulu-3-sft-mixture, or from their Parquet files in
<root>/tulu-v2-sft-mixture and <root>/tulu-3-sft-mixture. A row of a source that is not listed here
is an error, so no row is dropped unseen. One row in a hundred of each source is "validation" (the
releases have no such split); "all" has every row, as the published models were trained.

Each size of Tulu 3 has pairs of its own, with answers of its SFT model among them: the tasks
`tulu3_preferences_8b` and `tulu3_preferences_70b` (allenai/llama-3.1-tulu-3-8b-preference-mixture).

`python -m tasks.tulu ROOT` compares the rows on disk with the counts below.

What the public sources say about the counts:

- Tulu 3's card lists 18 sets with 889,344 rows, but states a total of 939,344. The release has
  939,343: the list leaves out the 50,000 rows of OpenMathInstruct 2 (`open_math_gsm8k`), and has
  one row of OASST1 too many (7,132; the release holds 7,131). The 240 hard-coded rows are 24 rows
  ten times.
- Tulu 2's card lists parts of about 330,400 rows; the release holds 326,154 after filtering, so
  some of the counts were made before it. The card gives about 7,500 for the six scientific sets
  together (7,468 in a later configuration).
"""

import argparse
import collections
import json
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.rows import OnlyRows, Row, RowsSource
from ift_jax.text.rows import canonical
from ift_jax.text.rows.parse_record import RowOptions, parse_record

_SCIENCE = (
    "science.evidence_inference",
    "science.qasper_truncated_4000",
    "science.scierc_ner",
    "science.scierc_relation",
    "science.scifact_json",
    "science.scitldr_aic",
)
_PAIR_FIELDS = ("messages", "rejected_messages")
_V39 = "ai2-adapt-dev/tulu_v3.9_"


class Source(NamedTuple):
    """One source of a release: the values of its column, and the published number of rows."""

    values: tuple[str, ...]
    rows: int


class Release(NamedTuple):
    """A release: its data set, the column that names the source, the sources, and all its rows."""

    dataset: str
    column: str
    sources: Mapping[str, Source]
    rows: int


TULU2: Mapping[str, Source] = {
    "flan_v2": Source(("flan_v2",), 50_000),
    "cot": Source(("cot",), 50_000),
    "oasst1": Source(("oasst1",), 7_708),
    "sharegpt": Source(("sharegpt",), 114_046),
    "gpt4_alpaca": Source(("gpt4_alpaca",), 20_000),
    "code_alpaca": Source(("code_alpaca",), 20_022),
    "lima": Source(("lima",), 1_030),
    "wizardlm": Source(("wizardlm",), 30_000),
    "open_orca": Source(("open_orca",), 30_000),
    "science": Source(_SCIENCE, 7_468),
    "hard_coded": Source(("hard_coded",), 140),
}
TULU2_RELEASED = 326_154

TULU3: Mapping[str, Source] = {
    "coconot": Source(("ai2-adapt-dev/coconot_converted",), 10_983),
    "flan_v2": Source(("ai2-adapt-dev/flan_v2_converted",), 89_982),
    "no_robots": Source(("ai2-adapt-dev/no_robots_converted",), 9_500),
    "oasst1": Source(("ai2-adapt-dev/oasst1_converted",), 7_131),
    "persona_math": Source(("ai2-adapt-dev/personahub_math_v5_regen_149960",), 149_960),
    "persona_gsm": Source(("allenai/tulu-3-sft-personas-math-grade",), 49_980),
    "persona_python": Source(("ai2-adapt-dev/personahub_code_v2_34999",), 34_999),
    "persona_algebra": Source((_V39 + "personahub_math_interm_algebra_20k",), 20_000),
    "persona_if": Source(("ai2-adapt-dev/personahub_ifdata_manual_seed_v3_29980",), 29_980),
    "numinamath_tir": Source(("ai2-adapt-dev/numinamath_tir_math_decontaminated",), 64_312),
    "wildguardmix": Source(
        (_V39 + "synthetic_finalresp_wildguardmixtrain_decontaminated_50k",), 50_000
    ),
    "wildjailbreak": Source((_V39 + "wildjailbreak_decontaminated_50k",), 50_000),
    "hard_coded": Source(("ai2-adapt-dev/tulu_hard_coded_repeated_10",), 240),
    "aya": Source((_V39 + "aya_100k",), 100_000),
    "wildchat": Source((_V39 + "wildchat_100k",), 100_000),
    "table_gpt": Source((_V39 + "table_gpt_5k",), 5_000),
    "sciriff": Source((_V39 + "sciriff_10k",), 10_000),
    "evol_codealpaca": Source(("ai2-adapt-dev/evol_codealpaca_heval_decontaminated",), 107_276),
    "open_math_gsm8k": Source((_V39 + "open_math_2_gsm8k_50k",), 50_000),  # Not on the card.
}
TULU3_RELEASED = 939_343

RELEASES = {
    "tulu2": Release("allenai/tulu-v2-sft-mixture", "dataset", TULU2, TULU2_RELEASED),
    "tulu3": Release("allenai/tulu-3-sft-mixture", "source", TULU3, TULU3_RELEASED),
}


PREFERENCES = {
    f"tulu3_preferences_{size}": f"allenai/llama-3.1-tulu-3-{size}-preference-mixture"
    for size in ("8b", "70b")
}


def register(root: str) -> None:
    """Register the tasks of both releases and their mixtures, and those of pairs."""
    for name, dataset in PREFERENCES.items():
        register_task(name, RowsSource(dataset, _pair, root, fields=_PAIR_FIELDS, keep_out=100))
    for release_name, release in RELEASES.items():
        names = []
        for source_name, source in release.sources.items():
            name = f"{release_name}_{source_name}"
            register_task(name, _rows_source(release, root, source))
            names.append(name)
        register_mixture(f"{release_name}_sft", names)


def _rows_source(release: Release, root: str, source: Source | None = None) -> RowsSource:
    """Return the rows of a source, or of the whole release."""
    only = None
    if source:
        known = tuple(value for other in release.sources.values() for value in other.values)
        only = OnlyRows(release.column, source.values, known)
    return RowsSource(release.dataset, _record, root, keep_out=100, only=only)


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    return {"messages": json.dumps(messages, ensure_ascii=False)}


def _pair(row: Row, draws: Draws) -> Mapping[str, str]:
    sides = {side: row[side] for side in ("chosen", "rejected")}
    try:
        record = parse_record(sides, "the row", options=RowOptions("preference"))
    except UserError as error:
        raise ValueError(str(error)) from error  # The source says which row it is.
    return canonical.chat_fields(record)


class Count(NamedTuple):
    """The published and the found rows of a source."""

    source: str
    published: int
    found: int


def compare_counts(release_name: str, root: str) -> list[Count]:
    """Return the counts of a release's sources; sources that are not listed come last."""
    release = RELEASES[release_name]
    rows = _rows_source(release, root).rows("all")
    found = collections.Counter(row.value(release.column) for row in rows)
    counts = []
    for name, source in release.sources.items():
        n_found = sum(found.pop(value, 0) for value in source.values)
        counts.append(Count(name, source.rows, n_found))
    for value, n_found in found.items():
        counts.append(Count(f"{value} (not listed)", 0, n_found))
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the published and the found rows of each source."""
    parser = argparse.ArgumentParser(prog="python -m tasks.tulu", description=main.__doc__)
    parser.add_argument("root", help="the folder with the downloaded release")
    parser.add_argument("--release", choices=sorted(RELEASES), default="tulu3")
    args = parser.parse_args(arguments)
    try:
        counts = compare_counts(args.release, args.root)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    n_found = sum(count.found for count in counts)
    counts.append(Count("all", RELEASES[args.release].rows, n_found))
    print(f"{'source':<20} {'published':>9} {'found':>9}")
    for count in counts:
        note = "" if count.published == count.found else "  differs"
        print(f"{count.source:<20} {count.published:>9,} {count.found:>9,}{note}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
