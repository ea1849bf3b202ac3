"""Templates of promptsource: reading, rendering, safety, and the lint."""

import subprocess
import sys

import jinja2
import pytest

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from tasks.t0 import lint, promptsource
from tasks.t0.promptsource import Template, answer_choices, apply, read_templates
from tests.shared_data import SHARED, requires_shared

YAML = """\
dataset: weather
templates:
  11: !Template
    answer_choices: sun ||| rain
    id: 11
    jinja: "Sky: {{sky}}\\nWhat comes? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      languages: [en]
      metrics: [Accuracy]
      original_task: true
    name: what comes
    reference: ''
  22: !Template
    answer_choices: null
    id: 22
    jinja: '{% if label == 1 %}{{sky}} and then? ||| {{ answer }}{% endif %}'
    metadata: !TemplateMetadata
      metrics: [BLEU, ROUGE]
      original_task: false
    name: and then
    reference: ''
"""


def _write(tmp_path, text=YAML):
    path = tmp_path / "weather" / "templates.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_file_is_read_by_name(tmp_path):
    then, comes = read_templates(_write(tmp_path))
    assert (then.name, then.answer_choices, then.original_task) == ("and then", "", False)
    assert comes == Template(
        name="what comes",
        jinja="Sky: {{sky}}\nWhat comes? ||| {{ answer_choices[label] }}",
        answer_choices="sun ||| rain",
        id="11",
        original_task=True,
        metrics=("Accuracy",),
        languages=("en",),
    )
    assert promptsource.variables(comes) == {"sky", "label"}


def test_rendering_to_the_letter(tmp_path):
    then, comes = read_templates(_write(tmp_path))
    row = {"sky": "dark", "label": 1, "answer": "It pours."}
    assert apply(comes, row, Draws(0)) == ("Sky: dark\nWhat comes?", "rain")
    assert answer_choices(comes, row, Draws(0)) == ["sun", "rain"]
    assert apply(then, row, Draws(0)) == ("dark and then?", "It pours.")
    assert apply(then, row | {"label": 0}, Draws(0)) is None  # The template leaves the row out.
    assert (
        apply(then, row | {"answer": " "}, Draws(0)) is None
    )  # An empty target is nothing to train on.
    assert answer_choices(then, row, Draws(0)) == []


def test_separators_in_a_row_are_text():
    template = Template("t", "{{a}} ||| {{answer_choices[0]}}", "{{b | join(' ||| ')}}")
    row = {"a": "x ||| y", "b": ["p|||q", "r"]}
    assert answer_choices(template, row, Draws(0)) == ["p|||q", "r"]
    assert apply(template, row, Draws(0)) == ("x ||| y", "p|||q")


def test_long_values_are_shortened_but_not_a_list_of_answers():
    template = Template("t", "{{a}} {{a}} ||| {{b}}", "{{c | join(' ||| ')}}")
    row = {"a": "word " * 1000, "b": "x", "c": ["y" * 1500, "z" * 1500]}
    text, _ = apply(template, row, Draws(0))
    assert text.count("...") == 2 and len(text) < 2 * 2048 + 2
    assert answer_choices(template, row, Draws(0)) == row["c"]


@pytest.mark.parametrize("name", ["choice", "random"])
def test_random_filters_use_the_draws_of_the_example(name):
    template = Template("t", "{{ ['a', 'b', 'c', 'd'] | " + name + " }} ||| x")
    drawn = [apply(template, {}, Draws(seed))[0] for seed in range(30)]
    assert drawn == [apply(template, {}, Draws(seed))[0] for seed in range(30)]
    assert set(drawn) == {"a", "b", "c", "d"}


def test_helpers_that_templates_use():
    row = {"items": ["b", "a", "b", "a", "c"]}
    text = (
        "{{items | most_frequent | join(',')}} {% for a, b in zip([1], [2]) %}{{a+b}}{% endfor %}"
    )
    assert apply(Template("t", text + "||| x"), row, Draws(0)) == ("b,a 3", "x")


def test_the_wrong_number_of_parts_is_an_error():
    for text in ("one", "one ||| two ||| three"):
        with pytest.raises(ValueError, match="expected an input"):
            apply(Template("t", text), {}, Draws(0))


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }} ||| x",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }} ||| x",
    ],
)
def test_jinja_is_sandboxed(text):
    with pytest.raises(jinja2.TemplateError):
        apply(Template("t", text), {}, Draws(0))


def test_a_template_cannot_change_a_row():
    row = {"items": ["a"], "deep": {"b": ["c"]}}
    text = "{% set _ = items.append('x') %}{% set _ = deep.b.append('y') %}{{items}} ||| x"
    assert apply(Template("t", text), row, Draws(0)) == ("['a', 'x']", "x")
    assert row == {"items": ["a"], "deep": {"b": ["c"]}}


def test_a_choice_of_nothing_is_an_error():
    with pytest.raises(promptsource.RENDERING_ERRORS, match="nothing to choose from"):
        apply(Template("t", "{{ [] | choice }} ||| x"), {}, Draws(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("templates:\n  1: !!python/object/apply:os.system ['true']\n", ":2: not promptsource's"),
        ("templates: [\n", "not promptsource's YAML"),
        ("other: 1\n", "expected a mapping with templates"),
        ("templates:\n  1: !Template\n    name: a\n", "1: jinja is missing"),
        ("templates:\n  1: 5\n", "1: name is missing"),
        (
            "templates:\n  1: !Template {name: a, jinja: x}\n  2: !Template {name: a, jinja: y}\n",
            "two templates are called 'a'",
        ),
    ],
)
def test_errors_name_file_and_template(tmp_path, text, message):
    with pytest.raises(UserError) as caught:
        read_templates(_write(tmp_path, text))
    assert message in str(caught.value) and "templates.yaml" in str(caught.value)


def test_the_lint_finds_what_is_wrong(tmp_path):
    _write(tmp_path)
    assert lint.lint(str(tmp_path)) == (2, [])
    _write(
        tmp_path,
        "templates:\n"
        "  1: !Template {name: a, id: 2, jinja: '{{sky}} ||| {{answer_choices[0]}}'}\n"
        "  2: !Template {name: a, id: 2, jinja: '{{sky | nothing}}', answer_choices: yes}\n"
        "  3: !Template {name: c, id: 3, jinja: '{{sea}} ||| a ||| b', answer_choices: only}\n"
        "  4: !Template {name: d, id: 4, jinja: '{{sea}} ||| a'}\n"
        "  5: !Template {name: e, id: 5, jinja: '{{[][0].x}} {{sky}} ||| a'}\n",
    )
    (tmp_path / "weather" / "train.jsonl").write_text('{"sky": "blue"}\n')
    _, problems = lint.lint(str(tmp_path))
    text = "\n".join(problems)
    for expected in (
        "'a': its id '2' is not its key 1",
        "'a': it reads answer_choices but has none",
        "'a': the id is taken, by ",
        "'a': the name occurs twice",
        "'a': the Jinja does not parse: No filter named 'nothing'",
        "'c': 2 separators |||; expected one",
        "'c': answer_choices is a single answer",
        "'d': reads 'sea'; the rows have: sky",
        "'e': row 0: list object has no element 0",
    ):
        assert expected in text, expected
    assert len(problems) == 9, text


def test_the_lint_is_a_command(tmp_path):
    _write(tmp_path)
    command = [sys.executable, "-m", "tasks.t0.lint"]
    good = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "2 templates, 0 problems\n")
    assert lint.main([str(tmp_path / "none")]) == 1
    assert lint.main([]) == 2


@requires_shared
def test_the_lint_passes_real_templates():
    count, problems = lint.lint(str(SHARED / "data" / "promptsource"))
    assert (count, problems) == (236, [])
