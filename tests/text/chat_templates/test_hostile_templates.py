"""Malicious templates end soon, in little memory, with one clear line."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.template import Template

GROW = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = GROWN %}{% endfor %}"
BOOK = GROW.replace("'ab'", "['ab']")
HOSTILE = {
    "class": "{{ messages.__class__.__mro__ }}",
    "class by filter": "{{ messages | attr('__class__') }}",
    "class by map": "{{ messages | map(attribute='__class__') | list }}",
    "globals": "{{ raise_exception.__globals__ }}",
    "globals of a macro": "{% macro f() %}{% endmacro %}{{ f.__init__.__globals__ }}",
    "self": "{{ self._TemplateReference__context }}",
    "subscript": "{{ ''['__class__'] }}",
    "format": "{{ '{0.__class__}'.format(messages) }}",
    "format by filter": "{{ '%s' | format(1) }}",
    "format by another name": "{% set f = 'x{:>999999999}'.format %}{{ f(1) }}",
    "format map": "{{ ['{:>999999999}'] | map('format', 1) | join }}",
    "namespace": "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
    "append": "{{ messages.append(1) }}",
    "generator frame": "{{ (messages | map('length')).gi_frame.f_globals }}",
    "import": "{% import 'os' as os %}",
    "from": "{% from 'os' import path %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends '/etc/passwd' %}",
    "cycler": "{{ cycler.__init__.__globals__ }}",
    "lipsum": "{{ lipsum(n=10000000) }}",
    "autoescape": "{% autoescape true %}{{ '<' * 99999999 }}{% endautoescape %}",
    "nested ranges": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "range": "{{ range(99999999999) | list }}",
    "a long body": "{% for i in range(99999) %}" + "{% if i.x %}{% endif %}" * 3000 + "{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "exponential recursion": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "call block": "{% macro f(n) %}{% if n %}{% call f(n - 1) %}{% endcall %}{% call f(n - 1) %}"
    "{% endcall %}{% endif %}{% endmacro %}{{ f(60) }}",
    "times": "{{ 'x' * 9999999999 }}",
    "times, the other way": "{{ 9999999999 * 'x' }}",
    "list times": "{{ ([1] * 9999999999) | length }}",
    "power": "{{ 10 ** (10 ** 10) }}",
    "number": GROW.replace("'ab'", "9").replace("GROWN", "ns.x * ns.x"),
    "number by sums": GROW.replace("'ab'", "9").replace("range(60)", "range(99999)").replace(
        "GROWN", "ns.x + ns.x"),
    "negative power": "{{ 3 ** -99999999999999 }}{{ 2.5 ** 99999 }}",
    "percent": "{{ '%999999999d' % 1 }}",
    "doubling": GROW.replace("GROWN", "ns.x + ns.x"),
    "doubling by ~": GROW.replace("GROWN", "ns.x ~ ns.x"),
    "doubling by replace": GROW.replace("GROWN", "ns.x.replace('a', 'aaaa')"),
    "doubling by filter": GROW.replace("GROWN", "ns.x | replace('a', 'aaaa')"),
    "doubling by join": GROW.replace("GROWN", "[ns.x, ns.x] | join"),
    "doubling by str.join": GROW.replace("GROWN", "ns.x.join(ns.x)"),
    "doubling by a set block": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set y %}"
    "{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "doubling by a macro": "{% macro f(n) %}{% set y = f(n - 1) if n else 'ab' %}{{ y }}{{ y }}"
    "{% endmacro %}{{ f(60) }}",
    "doubling lists": BOOK.replace("GROWN", "ns.x + ns.x"),
    "a list of lists, shown": BOOK.replace("GROWN", "[ns.x, ns.x]") + "{{ ns.x }}",
    "a list of lists, as text": BOOK.replace("GROWN", "[ns.x, ns.x]") + "{{ ns.x | string }}",
    "a list of lists, joined": BOOK.replace("GROWN", "[ns.x, ns.x]") + "{{ ns.x | join }}",
    "a list of lists, as JSON": BOOK.replace("GROWN", "[ns.x, ns.x]") + "{{ ns.x | tojson }}",
    "a list of lists, by ~": BOOK.replace("GROWN", "[ns.x, ns.x]") + "{{ ns.x ~ '' }}",
    "a list of lists, compared": "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "a list of lists, found": "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x in [ns.y] }}",
    "a list of lists, tested": "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x is eq(ns.y) }}"
    "{{ [ns.x] | select('in', [ns.y]) | list }}",
    "a list of lists, sorted": "{% set ns = namespace(x=['a'], y=['a']) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ [ns.x, ns.y] | sort }}",
    "a list of lists, in a key": "{% set ns = namespace(x=('a',)) %}{% for i in range(60) %}"
    "{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} | length }}",
    "padding": "{{ 'x'.ljust(9999999999) }}",
    "zeros": "{{ 'x'.zfill(9999999999) }}",
    "tabs": "{{ '\t'.expandtabs(9999999999) }}",
    "center": "{{ 'x' | center(9999999999) }}",
    "indent": "{{ 'x\ny' | indent(9999999999) }}",
    "indent by text": "{{ ('x\n' * 10000) | indent('y' * 10000) }}",
    "json indent": "{{ [[[1]]] | tojson(indent=999999999) }}",
    "json separators": "{{ ([1] * 10000) | tojson(separators=['x' * 10000, 'y']) }}",
    "wordwrap": "{{ ('x' * 100000) | wordwrap(1, true, 'x' * 100000) }}",
    "batch": "{{ [1] | batch(999999999, 'x') | list }}",
    "round": "{{ 1.5 | round(999999999, 'ceil') }}",
    "sum of lists": "{{ ([[1] * 1000] * 5000) | sum(start=[]) | length }}",
    "slices": "{% set x = 'x' * 1000000 %}{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
    "upper": "{% set x = 'x' * 1000000 %}{% for i in range(100000) %}{% set y = x.upper() %}{% endfor %}",
    "upper by filter": "{% set x = 'x' * 1000000 %}{% for i in range(100000) %}{% set y = x | upper %}"
    "{% endfor %}",
    "searches": "{% set x = 'x' * 1000000 %}{% for i in range(100000) %}{% if 'y' in x %}{% endif %}"
    "{% endfor %}",
    "pieces": "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + "
    "('x ' * 100000).split(' ') %}{% endfor %}",
    "chain of maps": "{{ range(99999)" + "|map('string')" * 300 + "|list|length }}",
    "chain of attribute maps": "{{ range(99999)" + "|map(attribute='real')" * 300 + "|list|length }}",
    "text in a loop": "{% for i in range(99999) %}" + "x" * 100000 + "{% endfor %}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "operators": "{{ " + "+".join(["1"] * 50000) + " }}",
    "long": "x" * 600_000,
    "blocks": "{% if 1 %}" * 300 + "{% endif %}" * 300,
    "constants": "{{ 'ab'" + "|replace('a', 'aaaaaaaaaa')" * 30 + " }}",
    "constant concatenation": "{{ ('x' * 99999999) ~ 'y' }}",
    "call a number": "{{ 5() }}",
    "dict": "{{ dict.fromkeys(range(99999999)) }}{{ dict.mro() }}",
    "loop changed": "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]"
    " %}{% endfor %}{% for i in range(9) %}{{ loop.changed(ns.x) }}{% endfor %}",
}  # fmt: skip
ADDRESSES = {
    "a class of Jinja": "{{ cycler }}",
    "a function of Jinja": "{{ lipsum }}",
    "a function": "{{ raise_exception }}",
    "a method": "{{ messages[0].content.strip }}",
    "a method by ~": "{{ 'x' ~ messages[0].content.strip }}",
    "a method in a list": "{{ [messages[0].items] }}",
    "a method in an object": "{{ {'f': [messages[0].items]} }}",
    "an unfinished map": "{{ messages | map(attribute='role') }}",
    "an unfinished select": "{{ ['a'] | select('eq', 'a') }}",
    "an unfinished map by ~": "{{ messages | map(attribute='role') ~ '' }}",
    "an unfinished map as text": "{{ messages | map(attribute='role') | string }}",
    "an unfinished map, trimmed": "{{ messages | map(attribute='role') | trim }}",
    "an unfinished map in a list": "{{ [messages | map(attribute='role')] | string }}",
    "joined functions": "{{ [raise_exception, 'x'] | join }}",
    "mapped to text": "{{ [raise_exception] | map('string') | list }}",
    "a macro": "{% macro f() %}x{% endmacro %}{{ f }}",
    "a loop": "{% for m in messages %}{{ loop }}{% endfor %}",
    "a namespace": "{{ namespace(a=1) }}",
    "a reversed list": "{{ messages | reverse }}",
    "a function as JSON": "{{ raise_exception | tojson }}",
}
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
RUN = """
import json, pathlib, sys, time
from ift_jax.errors import UserError
from ift_jax.text.chat_templates.template import Template
messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
results = {}
for name, source in json.load(sys.stdin).items():
    start = time.process_time()
    try:
        said = Template(source, "t").render("f:1", 7, messages=messages, tools=None)
        said = "RENDERED " + said.text[:60]
    except UserError as error:
        said = str(error)
    # ru_maxrss would not do: a process inherits it from the one that started it.
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").open())
    peak = int(status["VmHWM"].split()[0]) >> 10
    results[name] = (time.process_time() - start, peak, said)
print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="reads the peak memory from Linux"
)
def test_hostile_templates_end_soon_with_one_line():
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(HOSTILE),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    results = json.loads(run.stdout)
    assert set(results) == set(HOSTILE)
    for name, (seconds, megabytes, said) in results.items():
        assert not said.startswith("RENDERED"), (name, said)
        assert "template 't': " in said and "\n" not in said and len(said) < 400, name
        assert seconds < 5 and megabytes < 1024, (name, seconds, megabytes)
    print(f"{time.perf_counter() - start:.1f} s")


def render(source, **variables):
    template = Template(source, "t")
    return template.render("f:1", 100, messages=MESSAGES, tools=None, **variables).text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ (messages | rejectattr('role', 'eq', 'user') | first).content }}", "Hello"),
        ("{{ {'b': 1, 'a': '<é>'} | tojson }}", '{"b": 1, "a": "<é>"}'),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}", "a\n  b|  a\n  b"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "x1"),
        ("{% for k, v in {'x': 1} | items %}{{ k }}{{ v }}{% endfor %}", "x1"),
        ("{{ 'a,b'.split(',')[-1] | upper }}{{ ' x '.strip() }}{{ 'abc'[::-1] }}", "Bxcba"),
        ("{{ ', '.join(['a', 'b']) }}{{ 'x' | replace('x', 'y') }}", "a, by"),
        ("{% for i in range(5) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}"
         "{% endif %}{{ i }}{% endfor %}", "013"),
        ("{%- set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
         "{{ ns.n }}", "2"),
        ("{% macro f(x, y=2) %}{{ x }}{{ y }}{{ caller() if caller }}{% endmacro %}{{ f(1) }}"
         "{% call f(3) %}z{% endcall %}", "1232z"),
        ("{% for i in [1, [2]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}", "12"),
        ("{{ nothing }}{{ nothing is defined }}{{ nothing | default('d') }}", "Falsed"),
        ("{% if 'x' in 'xyz' and 1 < 2 <= 2 and [1] == [1] %}yes{% endif %}", "yes"),
        ("{{ 7 % 4 + 2 ** 3 }}{{ '-' * 3 }}{{ [1] + [2] }}{{ (1, 2) | length }}", "11---[1, 2]2"),
        ("{{ loop is defined }}{% for m in messages %}{{ loop.index0 }}{{ loop.last }}{{ "
         "loop.nextitem.role if loop.nextitem is defined }}{% endfor %}",
         "False0Falseassistant1True"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | trim ~ 'b' }}{% filter upper %}c{% endfilter %}", "a1bC"),
        ("{{ '</think>' in messages[0]['content'] }}{{ messages[::-1][0].role }}", "Falseassistant"),
        ("{{ messages[0].tool_calls is defined }}{{ messages[0].get('tool_calls') is none }}",
         "FalseTrue"),
        ("{{ [3, 1, 2] | sort | join }}{{ {'b': 1, 'a': 2} | dictsort }}", "123[('a', 2), ('b', 1)]"),
        ("{{ 'x' is string }}{{ {} is mapping }}{{ '5' | int + 1 }}{{ dict(a=1).a }}", "TrueTrue61"),
    ],
)  # fmt: skip
def test_ordinary_templates_render_as_in_transformers(source, text):
    assert render(source) == text
    utils = pytest.importorskip("transformers.utils.chat_template_utils")
    assert utils.render_jinja_template([MESSAGES], chat_template=source)[0] == [text]


def test_the_error_that_a_template_raises_is_reported():
    with pytest.raises(UserError, match="^f:1: template 't': roles must alternate$"):
        render("{{ raise_exception('roles\n must alternate') }}")
    with pytest.raises(UserError, match=r"^format.template 't': .*line 2\)$"):
        render("a\n{% endfor %}")


def test_the_budget_grows_with_the_conversation():
    messages = [{"role": "user", "content": "x" * 1000}] * 5000
    source = "{% for m in messages %}{{ m.role ~ m.content.strip() | trim }}{% endfor %}"
    rendered = Template(source, "t").render("f", 5_000_000, messages=messages)
    assert len(rendered.text) == 5000 * 1004


@pytest.mark.parametrize("name", ADDRESSES)
def test_no_text_holds_a_memory_address(name):
    """It would be another text in each process, and so stores of one name would differ."""
    template = Template(ADDRESSES[name], "mine")
    with pytest.raises(UserError, match=r"^data:3: template 'mine': .*(has no text|serializable)"):
        template.render("data:3", 10, messages=MESSAGES)


def test_what_has_a_text_is_written():
    source = "{{ [1, 'a', none, {'b': (2.5, true)}] }}{{ range(3) }}{{ messages[0].keys() }}{{ x }}"
    source += "{{ [messages | map(attribute='role') | join('+'), x] | string }}"
    text = Template(source, "mine").render("data:3", 10, messages=MESSAGES).text
    assert text == (
        "[1, 'a', None, {'b': (2.5, True)}]range(0, 3)dict_keys(['role', 'content'])"
        "['user+assistant', Undefined]"
    )


@pytest.mark.parametrize("call", ["cycler('a', 'b').next()", "joiner(', ')", "lipsum(1)"])
def test_globals_of_jinja_that_are_not_there_are_refused(call):
    template = Template(f"{{{{ {call} }}}}", "mine")
    with pytest.raises(UserError, match="^data:3: template 'mine': "):
        template.render("data:3", 10, messages=MESSAGES)
