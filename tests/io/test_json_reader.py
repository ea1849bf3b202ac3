"""Whatever is wrong with a JSON text is a UserError of one line that names the place."""

import math

import pytest

from ift_jax.errors import UserError
from ift_jax.io.files import read_json
from ift_jax.io.json_reader import parse_json, read_json_file, read_json_object

TEXTS = [
    ('{"a": [1, 2.5, null, "é"]}', {"a": [1, 2.5, None, "é"]}),
    ("\ufeff[true]", [True]),
    (b"\xef\xbb\xbf{}", {}),
    ("1" * 4300, int("1" * 4300)),
    ("1e308", 1e308),
]


@pytest.mark.parametrize(("text", "value"), TEXTS)
@pytest.mark.parametrize("strict", [False, True])
def test_json_is_read(text, value, strict):
    assert parse_json(text, "f", strict=strict) == value


WRONG = [
    ("", "f: column 1: Expecting value; expected a list"),
    ('{"a": ', "f: column 7: Expecting value; expected a list"),
    ('{\n "a": }', "f: line 2, column 7: Expecting value; expected a list"),
    ('{"a": 1} x', "f: column 10: Extra data"),
    (b'{"a": "\xff"}', "f: byte 8 is not valid UTF-8"),
    ('{"a": 1}'.encode("utf-16"), "f: is UTF-16; expected UTF-8"),
    ('{"a": 1}'.encode("utf-32"), "f: is UTF-16; expected UTF-8"),
    ("[" * 100_000, "f: nested too deeply"),
    ('{"a":' * 100_000, "f: nested too deeply"),
    ("1" * 4301, "f: a number has more than 4,300 digits"),
    ("-" + "9" * 5000, "f: a number has more than 4,300 digits"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
@pytest.mark.parametrize("strict", [False, True])
def test_whatever_is_wrong_is_one_line(text, message, strict):
    with pytest.raises(UserError) as caught:
        parse_json(text, "f", expected="a list", strict=strict)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1, "b": 2, "a": 3}]', "f: key 'a' occurs twice in one object"),
        ("[1e400]", "f: the number 1e400 is too large for a float"),
        ("-1e999", "f: the number -1e999 is too large"),
        ("NaN", "f: NaN is no JSON number"),
        ("[-Infinity]", "f: -Infinity is no JSON number"),
    ],
)
def test_strict_refuses_what_python_reads_with_a_loss(text, message):
    parse_json(text, "f")
    with pytest.raises(UserError, match=message):
        parse_json(text, "f", strict=True)
    assert math.isnan(parse_json("NaN", "f"))


def test_a_file_is_named_by_every_error(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(No such file"):
        read_json_file(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_json_file(tmp_path)
    path.write_bytes(b"[1, 2")
    with pytest.raises(UserError, match=r"a\.json: column 6"):
        read_json_file(path)
    path.write_bytes(b"[1, 2]")
    assert read_json_file(path) == [1, 2]
    with pytest.raises(UserError, match=r"a\.json: expected a JSON object, found a list"):
        read_json_object(path)


@pytest.mark.parametrize("content", [text.encode() for text, _ in WRONG if isinstance(text, str)])
def test_a_note_of_our_own_that_is_broken_counts_as_missing(tmp_path, content):
    path = tmp_path / "note.json"
    assert read_json(path) is None
    path.write_bytes(content)
    assert read_json(path) is None
