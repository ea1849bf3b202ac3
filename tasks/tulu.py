"""The supervised mixtures of Tulu 2 (arXiv:2311.10702) and Tulu 3 (arXiv:2411.15124), by source.

`register(root)` registers for each release a task a source, `tulu2_<source>`, `tulu3_<source>`,
and the mixtures `tulu2_sft` and `tulu3_sft` of them, in proportion to their sizes: one epoch is
every row once. Rows (messages, and the column that names the source) come from
allenai/tulu-v2-sft-mixture and allenai/tulu-3-sft-mixture, or from their Parquet files in
<root>/tulu-v2-sft-mixture and <root>/tulu-3-sft-mixture. A row of a source that is not listed
here is an error: no row is left out unseen. One row in a hundred of each source is "validation"
(the releases have no such split); "all" has every row, as the published models were trained.

`python -m tasks.tulu ROOT` compares the rows on disk with the counts below.

What the public sources say about the counts:
- Tulu 3's card lists 18 sets, 889,344 rows, and calls them 939,344. The release has 939,343:
  the list leaves out the 50,000 rows of OpenMathInstruct 2 (`open_math_gsm8k`), and has one row of
  OASST1 too many (7,132; the release holds 7,131). The 240 hard-coded rows are 24, ten times.
- Tulu 2's card lists parts of about 330,400 rows; the release holds 326,154 after filtering, so
  some counts are from before it. The card gives about 7,500 for the six scientific sets together
  (7,468 in a later configuration).
"""

import argparse
import collections
import json
from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.rows import OnlyRows, Row, RowsSource

_SCIENCE = (
    "science.evidence_inference",
    "science.qasper_truncated_4000",
    "science.scierc_ner",
    "science.scierc_relation",
    "science.scifact_json",
    "science.scitldr_aic",
)
_V39 = "ai2-adapt-dev/tulu_v3.9_"

# Source -> (values of the column, published rows).
TULU2: Mapping[str, tuple[tuple[str, ...], int]] = {
    "flan_v2": (("flan_v2",), 50_000),
    "cot": (("cot",), 50_000),
    "oasst1": (("oasst1",), 7_708),
    "sharegpt": (("sharegpt",), 114_046),
    "gpt4_alpaca": (("gpt4_alpaca",), 20_000),
    "code_alpaca": (("code_alpaca",), 20_022),
    "lima": (("lima",), 1_030),
    "wizardlm": (("wizardlm",), 30_000),
    "open_orca": (("open_orca",), 30_000),
    "science": (_SCIENCE, 7_468),
    "hard_coded": (("hard_coded",), 140),
}
TULU2_RELEASED = 326_154

TULU3: Mapping[str, tuple[tuple[str, ...], int]] = {
    "coconot": (("ai2-adapt-dev/coconot_converted",), 10_983),
    "flan_v2": (("ai2-adapt-dev/flan_v2_converted",), 89_982),
    "no_robots": (("ai2-adapt-dev/no_robots_converted",), 9_500),
    "oasst1": (("ai2-adapt-dev/oasst1_converted",), 7_131),
    "persona_math": (("ai2-adapt-dev/personahub_math_v5_regen_149960",), 149_960),
    "persona_gsm": (("allenai/tulu-3-sft-personas-math-grade",), 49_980),
    "persona_python": (("ai2-adapt-dev/personahub_code_v2_34999",), 34_999),
    "persona_algebra": ((_V39 + "personahub_math_interm_algebra_20k",), 20_000),
    "persona_if": (("ai2-adapt-dev/personahub_ifdata_manual_seed_v3_29980",), 29_980),
    "numinamath_tir": (("ai2-adapt-dev/numinamath_tir_math_decontaminated",), 64_312),
    "wildguardmix": (
        (_V39 + "synthetic_finalresp_wildguardmixtrain_decontaminated_50k",),
        50_000,
    ),
    "wildjailbreak": ((_V39 + "wildjailbreak_decontaminated_50k",), 50_000),
    "hard_coded": (("ai2-adapt-dev/tulu_hard_coded_repeated_10",), 240),
    "aya": ((_V39 + "aya_100k",), 100_000),
    "wildchat": ((_V39 + "wildchat_100k",), 100_000),
    "table_gpt": ((_V39 + "table_gpt_5k",), 5_000),
    "sciriff": ((_V39 + "sciriff_10k",), 10_000),
    "evol_codealpaca": (("ai2-adapt-dev/evol_codealpaca_heval_decontaminated",), 107_276),
    "open_math_gsm8k": ((_V39 + "open_math_2_gsm8k_50k",), 50_000),  # Not on the card.
}
TULU3_RELEASED = 939_343

RELEASES = {
    "tulu2": ("allenai/tulu-v2-sft-mixture", "dataset", TULU2, TULU2_RELEASED),
    "tulu3": ("allenai/tulu-3-sft-mixture", "source", TULU3, TULU3_RELEASED),
}


def register(root: str) -> None:
    """Registers the tasks of both releases and their mixtures."""
    for release, (_, _, sources, _) in RELEASES.items():
        for name in sources:
            register_task(f"{release}_{name}", _source(release, root, name))
        register_mixture(f"{release}_sft", [f"{release}_{name}" for name in sources])


def _source(release: str, root: str, name: str = "") -> RowsSource:
    dataset, column, sources, _ = RELEASES[release]
    known = tuple(value for values, _ in sources.values() for value in values)
    only = OnlyRows(column, sources[name][0], known) if name else None
    return RowsSource(dataset, _record, root, keep_out=100, only=only)


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    messages = [{"role": m["role"], "content": m["content"]} for m in row["messages"]]
    return {"messages": json.dumps(messages, ensure_ascii=False)}


def compare_counts(release: str, root: str) -> list[tuple[str, int, int]]:
    """Returns (source, published rows, rows found) of a release, sources not listed last."""
    _, column, sources, _ = RELEASES[release]
    rows = _source(release, root).rows("all")
    found = collections.Counter(row.value(column) for row in rows)
    table = [(n, count, sum(found.pop(v, 0) for v in vs)) for n, (vs, count) in sources.items()]
    return table + [(f"{value} (not listed)", 0, count) for value, count in found.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints published and found rows a source."""
    parser = argparse.ArgumentParser(prog="python -m tasks.tulu", description=main.__doc__)
    parser.add_argument("root", help="the folder with the downloaded release")
    parser.add_argument("--release", choices=sorted(RELEASES), default="tulu3")
    given = parser.parse_args(arguments)
    table = compare_counts(given.release, given.root)
    total = RELEASES[given.release][3]
    table.append(("all", total, sum(found for _, _, found in table)))
    print(f"{'source':<20} {'published':>9} {'found':>9}")
    for name, published, found in table:
        print(f"{name:<20} {published:>9,} {found:>9,}{'' if published == found else '  differs'}")


if __name__ == "__main__":
    main()
