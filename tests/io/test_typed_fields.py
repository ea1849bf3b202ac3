"""Typed reading: every wrong type is one short line with file, field, value and expectation."""

import math

import pytest

from ift_jax.errors import UserError
from ift_jax.io import typed_fields as typed

KINDS = {
    "whole": (typed.whole(1, 1000), [1, 1000], [True, 1.0, 0, 1001, -1, 10**24, "1", None, [1]]),
    "number": (typed.NUMBER, [0, -1.5, 10**200], [True, math.nan, math.inf, 10**400, "1", None]),
    "positive": (typed.POSITIVE, [1, 1e-9], [0, -1, False, math.inf]),
    "flag": (typed.FLAG, [True, False], [0, 1, "true", None]),
    "text": (typed.TEXT, ["", "x", "\U0001f600"], [b"x", 1, None, ["x"], "\ud83d"]),
    "texts": (typed.TEXTS, [[], ["x"]], ["x", ["x", 1], {"x": 1}]),
    "object": (typed.object_of(typed.TEXT), [{}, {"a": "b"}], [[], {"a": 1}]),
    "one of": (typed.one_of((1, "x")), [1, "x"], [True, 1.0, "y", [1], {}]),
    "ids": (typed.TOKEN_IDS | typed.NULL, [0, [1, 2], None], [-1, [True], 2**31, [[1]], 1.0]),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_takes_its_values_and_no_others(name):
    kind, good, bad = KINDS[name]
    fields = typed.TypedFields({f"good {i}": value for i, value in enumerate(good)}, "a.json")
    for i, value in enumerate(good):
        assert fields.get(f"good {i}", kind) is value
    for value in bad:
        with pytest.raises(UserError) as caught:
            typed.TypedFields({"f": value}, "a.json").get("f", kind)
        found = typed.shown(value)
        assert str(caught.value) == f"a.json: f is {found}; expected {kind.expected}"
        assert "\n" not in found and len(found) <= 60


def test_an_absent_field_has_its_default_or_is_required_and_null_is_not_absent():
    fields = typed.TypedFields({"none": None}, "a.json")
    assert fields.get("absent", typed.TEXT, "x") == "x"
    with pytest.raises(UserError, match="a.json: no field 'absent'; expected a string"):
        fields.get("absent", typed.TEXT)
    with pytest.raises(UserError, match="none is null; expected a string"):
        fields.get("none", typed.TEXT, "x")


def test_long_values_are_shown_in_part():
    assert typed.shown(10**5000) == "a number of more than 60 digits"
    assert typed.shown("x" * 10**6).endswith("...") and len(typed.shown(["x" * 99] * 99)) == 60
    assert [typed.shown(value) for value in (None, True, "a\nb")] == ["null", "true", r"'a\nb'"]
