"""Spoiled inputs are refused in one clear line, or read as their reference reads them."""

import pytest

from tests.robustness.fuzz import Result, fuzz, table
from tests.robustness.group import group_names
from tests.robustness.outcomes import GOOD, KINDS, Outcome

INPUTS_OF_A_GROUP = 45  # The same ones on every machine, however busy it is.


@pytest.mark.slow
def test_spoiled_inputs_are_refused_in_a_line_or_read_as_by_their_reference():
    names = group_names()
    results = list(fuzz(names, INPUTS_OF_A_GROUP * len(names)))
    assert len(results) == INPUTS_OF_A_GROUP * len(names)
    bad = [result for result in results if result.outcome.kind not in GOOD]
    assert not bad, "\n".join(map(str, bad[:10]))
    for name in names:
        kinds = {result.outcome.kind for result in results if result.group == name}
        assert kinds == set(GOOD), f"{name}: {table(results)}"


def test_the_table_counts_every_kind_of_outcome():
    results = [Result("a", i, Outcome(kind, "", "", 0.0)) for i, kind in enumerate(KINDS)]
    header, row, total = table([*results, Result("b", 0, results[0].outcome)]).splitlines()[:3]
    assert header.split()[:4] == ["group", "inputs", "refused", "accepted"]
    assert row.split() == ["a", str(len(KINDS)), *["1"] * len(KINDS)]
    assert total.split() == ["b", "1", "1", *["0"] * (len(KINDS) - 1)]
