"""The named templates write what other packages write of the same conversations."""

import functools
import importlib.util

import pytest

from tests.text.chat_templates import named_table, trl_table

pytest.importorskip("transformers")
pytestmark = pytest.mark.skipif(
    trl_table.folder() is None or importlib.util.find_spec("renderers") is None,
    reason="needs trl and renderers",
)
# What a template refuses of the conversations, which all others are compared on.
REFUSED = {
    "deepseek-v3": {"call", "call with a text", "calls in a row", "two calls"},
    "gemma4": {"call with a text"},
    "gpt-oss": {"two calls"},
    "llama3.1": {"call with a text", "two calls"},
}


@functools.cache
def rows():
    return named_table.rows()


def test_ids_masks_and_prompts_differ_from_the_references_for_stated_reasons_alone():
    assert [item for row in rows() for item in row.unexplained] == []
    assert sum(result.n_examples for row in rows() for result in row.results.values()) > 300


def test_conversations_are_taken_but_for_those_that_a_template_has_no_form_for():
    for row in rows():
        refused = {title for title, result in row.results.items() if result.refused}
        assert refused == REFUSED.get(row.name, set()), row.name


def test_the_page_shows_the_table():
    shown = trl_table.shown_table(named_table.BEGIN, named_table.END)
    assert shown == named_table.table(rows()).strip()
