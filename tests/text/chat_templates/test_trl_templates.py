"""Every template that TRL ships gives the ids and masks of `transformers`, or has its reason."""

import functools

import pytest

from tests.text.chat_templates import trl_table

pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(trl_table.folder() is None, reason="needs trl")

# Conversations that a template cannot be trained on, and why.
REFUSED = {
    "gemma": "System role not supported",
    "gemma_training": "System role not supported",
}


@functools.cache
def rows():
    return trl_table.rows()


def test_no_template_is_refused():
    assert [row.name for row in rows() if row.refused] == []


def test_ids_and_masks_differ_from_transformers_by_stated_rules_alone():
    assert [f"{row.name}: {fault}" for row in rows() for fault in row.faults] == []
    assert sum(result.n_examples for row in rows() for result in row.results.values()) > 400


def test_plain_conversations_are_taken_by_all():
    for row in rows():
        assert row.results["chat"].n_examples, row.name
        assert row.results["system"].n_examples or row.name in REFUSED, row.name


def test_the_page_shows_the_table():
    shown = trl_table.shown_table(trl_table.BEGIN, trl_table.END)
    assert shown == trl_table.table(rows()).strip()
