"""The blocks of `{% generation %}` in what a template writes."""

import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.template import Template


def render(source, messages=("a", "b")):
    return Template(source, "t").render("f:1", 10, messages=list(messages))


def test_parts_stand_outside_and_inside_in_turn():
    rendered = render(
        "{% for m in messages %}<{% generation %}{{ m }}{% endgeneration %}>{% endfor %}"
    )
    assert rendered.parts == ["<", "a", "><", "b", ">"]
    assert rendered.text == "<a><b>"
    assert rendered.n_generated == 2
    plain = render("{{ messages[0] }}")
    assert (plain.parts, plain.text, plain.n_generated) == (["a"], "a", 0)
    empty = render("{% generation %}{% endgeneration %}")
    assert empty.parts == ["", "", ""]


def test_a_block_that_a_break_leaves_lasts_until_the_end():
    source = (
        "{% for m in messages %}<{% generation %}{{ m }}{% break %}{% endgeneration %}{% endfor %}!"
    )
    assert render(source).parts == ["<", "a!"]


@pytest.mark.parametrize(
    "source",
    [
        "{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}",
        "{% set x %}{% generation %}a{% endgeneration %}{% endset %}{{ x[1:] }}",
        "{% for m in messages %}{% generation %}{% continue %}{% endgeneration %}{% endfor %}",
    ],
    ids=["nested", "cut off", "left twice"],
)
def test_blocks_that_are_nested_or_broken_are_an_error(source):
    with pytest.raises(UserError, match="^f:1: the template nests or breaks its generation$"):
        render(source)
