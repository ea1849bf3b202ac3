"""The page of a mixture shows every token as it is trained."""

import html
import re

import pytest

from tests.report import small_pages


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return small_pages.write_inspection(tmp_path_factory.mktemp("inspect")).read_text()


def tokens(page):
    """Each token as (classes, what hovering over it says, text)."""
    found = re.findall(r'<span class="token ([^"]*)" title="([^"]*)"[^>]*>([^<]*)</span>', page)
    return [tuple(map(html.unescape, token)) for token in found]


def test_trained_tokens_and_roles_are_those_of_the_conversation(page):
    by_class = {}
    for classes, _, text in tokens(page):
        by_class[classes] = by_class.get(classes, "") + text
    assert by_class["system"].strip() == "Be <b>brief</b>."
    assert by_class["user"].replace(" ", "") == "Whereisit?Andnow?"
    assert by_class["assistant"].strip() == "Here."
    assert by_class["assistant trained"].strip() == "There & here."
    assert by_class["template trained"] == "<|im_end|>"


def test_the_counts_are_those_of_the_head(page):
    [head] = re.findall(r"example 0: (\d+) tokens, (\d+) trained</summary>", page)
    shown = tokens(page)
    assert len(shown) == int(head[0])
    assert sum("trained" in classes for classes, _, _ in shown) == int(head[1])


def test_hovering_says_id_piece_role_and_why(page):
    from tests.text.small_tokenizers import sentencepiece_tokenizer

    tokenizer = sentencepiece_tokenizer()
    titles = [title for _, title, _ in tokens(page)]
    assert all(re.match(r"id \d+ \| '.*' \| \w+ \| (not )?trained", title) for title in titles)
    ids = [int(title.split()[1]) for title in titles]
    assert "There & here." in tokenizer.decode(ids)
    assert any("trained with weight 1: part of an answer" in title for title in titles)
    assert any("not trained: system is context here" in title for title in titles)


def test_packed_rows_and_drops_are_drawn(page):
    blocks = re.findall(r'<span title="[^"]*" style="width:([\d.]+)%', page)
    assert blocks
    assert all(0 < float(width) <= 100 for width in blocks)
    assert "Dropped records" in page
    assert "Tokens of an example" in page
    assert page.count("<svg") == 2
