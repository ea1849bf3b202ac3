"""Where a template comes from, and its options."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.text.rows.parse_record import parse_record
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.model_templates import INST, LINES, ONE_LINE
from tests.text.formatters import chat_formatter, make_formatter, shown
from tests.text.shapes import CHAT
from tests.text.small_tokenizers import CHATML


def test_the_sources_of_a_template(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tok.definition("byte_level", CHATML))
    templates = [{"name": "x", "template": "no"}, {"name": "default", "template": ONE_LINE}]
    config = {**tok.NAMED, "chat_template": templates}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(tok.NAMED))

    def source(template="model"):
        tokenizer = load_tokenizer(str(tmp_path))
        return make_formatter(
            tokenizer, length=99, over_length="error", template=template
        ).template_source, tokenizer

    with pytest.raises(UserError, match="the tokenizer's folder holds no chat template"):
        source()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert source()[0] == ONE_LINE
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": INST}))
    assert source()[0] == INST
    (tmp_path / "chat_template.jinja").write_text(LINES)
    found, tokenizer = source()
    assert found == LINES == tokenizer.files["chat_template.jinja"].decode()
    assert source(str(tmp_path / "chat_template.jinja"))[0] == LINES
    with pytest.raises(UserError, match="format.template: no chat template in 'none.jinja'"):
        source("none.jinja")
    for bad, words in (
        ("{% if %}", "template '.given as text.': Expected an expression"),
        ("{{ messages[0].content }}", "expected that an answer follows"),
        ("{{ messages.nothing.more }}", "has no attribute 'nothing'"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            source(bad)
        assert "\n" not in str(raised.value)


def test_options_are_variables_of_the_template():
    formatter = chat_formatter(LINES, template_options=("date_string=\"1 {Mai} 'x'\"",))
    text = shown(formatter, formatter.encode(parse_record({"messages": CHAT[:2]}, "x"))[0])
    assert text.startswith("<s>Today Date: 1 {Mai} 'x'\n")
    base = chat_formatter(LINES).fingerprint
    assert base != formatter.fingerprint
    for bad in ("x", "messages=1", "a b=1", "x=y", "_x=1"):
        with pytest.raises(UserError, match="format.template_options: .*expected name=value"):
            chat_formatter(LINES, template_options=(bad,))
    nested = chat_formatter(
        "{{ a.b[1] is none }}" + ONE_LINE, template_options=('a={"b": [true, null]}',)
    )
    text = shown(nested, nested.encode(parse_record({"messages": CHAT[:2]}, "x"))[0])
    assert text.startswith("True<|im_start|>system")


def test_a_template_that_asks_for_the_date_is_refused():
    with pytest.raises(UserError, match="asks for today's date.*format.template_options"):
        chat_formatter("{{ strftime_now('%d') }}" + ONE_LINE)
