"""Of several named chat templates the one is taken that `transformers` takes."""

import json

import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.template import compile_template
from ift_jax.text.rows.parse_record import parse_record
from ift_jax.text.tokenizers.chat_template_files import one_template
from ift_jax.text.tokenizers.load import load_tokenizer, tokenizer_file_paths, tokenizer_from_files
from tests.text import chat_tokenizers as tok
from tests.text.formatters import make_formatter, shown
from tests.text.shapes import CALLED, CHAT, SHAPES, SYSTEM, TOOLS
from tests.text.small_tokenizers import CHATML

PLAIN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CALLS = (
    "{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>"
    + PLAIN.replace(
        "{{ '<|im_start|>' + m.role + '\n' + m.content +",
        "{{ '<|im_start|>' + m.role + '\n' + m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function | tojson }}{% endfor %}{{",
    )
)
# Beginnings and ends whose white space Jinja treats in ways of its own.
EDGES = [
    ("\n", "\n"),
    ("\n\n", "\n\n"),
    ("  {% if true %}\n  {% endif %}", "  "),
    ("  x", "\n   "),
    ("{%- set a = 1 -%}\n ", " {%- set b = 1 -%}\n"),
    ("{#- c -#} ", "\t\r\n"),
    ("\r\n", "{# c #}\n"),
]
ROWS = [
    {"messages": [SYSTEM, *CHAT]},
    {"messages": CALLED, "tools": TOOLS},
    {"messages": CHAT, "tools": TOOLS},
]


def write(folder, templates, form):
    """Writes a tokenizer whose named templates are a list in its config, or files."""
    config = dict(tok.NAMED)
    if form == "list":
        config["chat_template"] = [{"name": n, "template": t} for n, t in templates.items()]
    else:
        more = folder / "additional_chat_templates"
        more.mkdir()
        for name, template in templates.items():
            own = "chat_template.jinja" if name == "default" else f"{more.name}/{name}.jinja"
            (folder / own).write_text(template)
    (folder / "tokenizer.json").write_text(tok.definition("byte_level", CHATML))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("before_it, after_it", EDGES)
def test_each_of_two_templates_writes_what_it_writes_alone(before_it, after_it):
    alone = [before_it + template + after_it for template in (PLAIN, CALLS)]
    both = compile_template(
        one_template(dict(zip(("default", "tool_use"), alone, strict=True))), "both"
    )
    for tools, source in zip((None, TOOLS), alone, strict=True):
        given = {"messages": CHAT, "tools": tools, "add_generation_prompt": True}
        expected = compile_template(source, "alone").render("x", 1000, **given).text
        assert both.render("x", 1000, **given).text == expected and "So." in expected


@pytest.mark.parametrize("form", ["list", "files"])
def test_ids_are_those_of_the_template_that_transformers_takes(form, tmp_path):
    transformers = pytest.importorskip("transformers")
    named = {"default": PLAIN, "tool_use": CALLS, "rag": "{{ documents }}"}
    path = write(tmp_path, named, form)
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(path)
    how = make_formatter(load_tokenizer(path), template="model")
    for row in ROWS:
        [example] = how.encode(parse_record(row, "x"))
        ids = reference.apply_chat_template(
            row["messages"], tools=row.get("tools"), return_dict=True
        )["input_ids"]
        assert example.tokens.tolist() == ids
        before = {**row, "messages": row["messages"][:-1]}
        prompted = reference.apply_chat_template(
            before["messages"], tools=row.get("tools"), add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert how.prompt(parse_record(before, "x")).tolist() == prompted


def test_what_is_trained_and_what_a_run_keeps(tmp_path):
    path = write(tmp_path, {"default": PLAIN, "tool_use": CALLS}, "files")
    tokenizer = load_tokenizer(path)
    how = make_formatter(tokenizer, template="model")
    [example] = how.encode(parse_record(SHAPES["tools"], "x"))
    assert '«{"name": "f", "arguments": {"x": "é"}}<|im_end|>»' in shown(how, example)
    # A run keeps the tokenizer's own files, and reads the same template from them.
    assert tokenizer_from_files(tokenizer.files).chat_template == tokenizer.chat_template
    assert f"{path}/additional_chat_templates/tool_use.jinja" in tokenizer_file_paths(path)


@pytest.mark.parametrize("form", ["list", "files"])
def test_where_none_is_to_be_taken_the_names_are_said(form, tmp_path):
    row = parse_record({"messages": CHAT}, "f:1")
    (tmp_path / "a").mkdir()
    path = write(tmp_path / "a", {"rag": PLAIN, "chat": PLAIN}, form)
    with pytest.raises(UserError, match="chat templates are chat, rag, and none is named default"):
        make_formatter(load_tokenizer(path), template="model").encode(row)
    (tmp_path / "b").mkdir()
    path = write(tmp_path / "b", {"tool_use": CALLS}, form)
    with pytest.raises(UserError, match="chat templates are tool_use, and none is named default"):
        make_formatter(load_tokenizer(path), template="model").encode(row)
    (tmp_path / "c").mkdir()
    tagged = PLAIN.replace("+ m.content +", "}}{% generation %}{{ m.content +")
    tagged = tagged.replace("'<|im_end|>\n' }}", "'<|im_end|>' }}{% endgeneration %}")
    path = write(tmp_path / "c", {"default": PLAIN, "tool_use": tagged}, form)
    how = make_formatter(load_tokenizer(path), template="model")
    assert len(how.encode(row)) == 1
    with pytest.raises(UserError, match="default and tool_use one alone has generation tags"):
        how.encode(parse_record({"messages": CHAT, "tools": TOOLS}, "f:1"))
