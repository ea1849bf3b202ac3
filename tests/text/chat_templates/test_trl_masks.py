"""Thoughts, calls and other roles are masked or trained as asked under every template of TRL."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates import trl_table
from tests.text.formatters import make_formatter

pytestmark = pytest.mark.skipif(trl_table.folder() is None, reason="needs trl")

SCHEMA = {"type": "object", "properties": {"x": {"type": "string", "description": "what"}}}
FUNCTION = {"name": "measure", "description": "d", "parameters": SCHEMA}
CALL = {
    "type": "function",
    "id": "abc123def",
    "function": {"name": "measure", "arguments": {"x": "zebra"}},
}
USER = {"role": "user", "content": "Hi"}
# The thought holds the words of the answer.
THOUGHT = {"role": "assistant", "content": "Answer.", "reasoning_content": "Ponder: Answer. So"}
CALLED = {"role": "assistant", "content": "", "reasoning_content": "Ponder", "tool_calls": [CALL]}
TOOL = {"role": "tool", "content": "7", "name": "measure", "tool_call_id": "abc123def"}
ANSWER = {"role": "assistant", "content": "Answer."}
ROWS = [
    {"messages": [USER, THOUGHT]},
    {
        "messages": [USER, CALLED, TOOL, ANSWER],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
]


def trained(how, row):
    """The trained texts of a row's examples; None if the template refuses the row itself."""
    record = parse_record(row, "x")
    try:
        made = how.encode(record)
    except UserError as error:
        assert "cannot be kept" not in str(error)
        return None
    if not isinstance(made, list):
        return None
    decode = how.tokenizer.decode
    return [decode(e.tokens[e.weights > 0].tolist(), keep_special=True) for e in made]


def test_what_is_masked_is_never_trained_and_the_rest_is():
    checked = 0
    for path in sorted(trl_table.folder().glob("*.jinja")):
        source = path.read_text("utf-8")
        options = (trl_table.DATE,) if "strftime_now" in source else ()
        tokenizer = tok.ours("byte_level", trl_table.controls(source), source)
        how = make_formatter(tokenizer, template="model", template_options=options)
        stops = [tokenizer.decode([i], keep_special=True) for i in how.stop_ids]
        for row in ROWS:
            usual = trained(how, row)
            if usual is None:
                continue
            assert "Ponder" in "".join(usual) and "Answer." in usual[-1], path.stem
            masked = trained(how, {**row, "train_thinking": False, "train_tool_calls": False})
            assert masked, path.stem
            text = "".join(masked)
            assert not any(word in text for word in ("Ponder", "measure", "zebra")), path.stem
            assert "Answer." in masked[-1] and masked[-1].strip().endswith(tuple(stops)), path.stem
            asked = trained(how, {**row, "train_roles": ["user"]})
            assert len(asked) == 1 and asked[0].startswith("Hi"), path.stem
            assert "Answer." not in asked[0] and "Ponder" not in asked[0], path.stem
            checked += 1
    assert checked > 40
