"""Chat templates: ours and faults in them; the renderer of `transformers` judges."""

import functools
import importlib.resources
import importlib.util
import random
import re
from pathlib import Path
from typing import Any

from tests.robustness.group import Case, Group

_NAMES = ("chatml", "tulu", "zephyr", "llama3", "gemma", "qwen2.5", "plain")
# Pieces that a template may hold by mistake, or on purpose.
_PIECES = (
    "{{ nothing }}", "{{ nothing.of.this }}", "{{ messages[99] }}", "{{ messages[0]['x'] }}",
    "{% for x in range(1000000000) %}{% endfor %}", "{{ 'x' * 10000000000 }}", "{{ 9 ** 9 ** 9 }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages.__class__ }}", "{{ raise_exception('no') }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages | nothing }}", "{{ range }}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}", "{{ messages | map('x') }}",
    "{{ strftime_now('%Y') }}", "{{ namespace }}", "{{ cycler }}", "{{ lipsum(5) }}", "{{ dict }}",
    "{{ messages | tojson }}", "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{% set x = messages %}{{ x }}",
    "{{ messages.append(1) }}", "{{ (1, 2) | list | join }}", "{% break %}", "{{ self }}",
    "{% for m in messages %}{% break %}{% endfor %}", "{{ caller() }}", "{{ loop }}",
    "{{ bos_token }}",
    "{{ '%s' % messages }}", "{{ '{0.__class__}'.format(messages) }}", "{{ messages | random }}",
)  # fmt: skip
_ENDLESS = re.compile(r"\d{9}|\*\*")  # The reference has no bounds, and would not come back.
_CONVERSATION = [
    {"role": "user", "content": "Name 3 colors."},
    {"role": "assistant", "content": "Red, green, blue."},
    {"role": "user", "content": "And {{ 1 + 1 }} <b>more</b>?"},
]


@functools.cache
def _source(name: str) -> str:
    package = importlib.resources.files("ift_jax.text.chat_templates")
    return (package / f"{name}.jinja").read_text("utf-8")


class ChatTemplate(Group):
    """A prompt is rendered, within the bounds that the sandbox sets."""

    names_file = False

    def make(self, rng: random.Random, folder: Path) -> Case:
        name = rng.choice(_NAMES)
        source = _source(name)
        kind = rng.random()
        place = rng.randrange(len(source))
        change = ""
        if kind < 0.45:
            piece = rng.choice(_PIECES)
            # Between two tags, as a person would write it.
            places = [i for i in range(len(source)) if source.startswith("{%", i)] or [0]
            place = rng.choice(places)
            source, change = source[:place] + piece + source[place:], f"{piece} at {place}"
        elif kind < 0.7:
            n = rng.randint(1, 12)
            source, change = source[:place] + source[place + n :], f"{n} missing at {place}"
        elif kind < 0.9:
            character = rng.choice("{}%'\"()[]|-\n\u00e9x1")
            source = source[:place] + character + source[place:]
            change = f"{character!r} at {place}"
        path = folder / "template.jinja"
        path.write_text(source, "utf-8")
        return Case(f"{name}: {change}", path)

    def read(self, case: Case) -> Any:
        from ift_jax.text.chat_templates.render import ChatRenderer
        from ift_jax.text.chat_templates.template import Template
        from ift_jax.text.records import Message, Record
        from tests.text.small_tokenizers import huggingface_tokenizer

        template = Template(case.path.read_text("utf-8"), str(case.path))
        renderer = ChatRenderer(template, huggingface_tokenizer(), break_controls=False)
        messages = tuple(Message(m["role"], m["content"]) for m in _CONVERSATION)
        chat = renderer.prepare(Record(messages, where=str(case.path)))
        return "".join(span.text for span in renderer.prompt(chat))

    def complaint(self, case: Case, value: Any) -> str:
        if importlib.util.find_spec("transformers") is None or _ENDLESS.search(case.change):
            return ""
        from transformers.utils.chat_template_utils import render_jinja_template

        from tests.text.small_tokenizers import huggingface_tokenizer

        try:
            rendered, _ = render_jinja_template(
                conversations=[_CONVERSATION],
                chat_template=case.path.read_text("utf-8"),
                add_generation_prompt=True,
                **huggingface_tokenizer().special_tokens_map,
            )
        except Exception as error:  # Jinja raises errors of many kinds.
            if "'break' outside loop" in str(error):  # Inside of generation tags, which we allow.
                return ""
            return f"transformers refuses it: {error}"[:500]
        return "" if rendered[0] == value else f"transformers writes {rendered[0]!r}; we {value!r}"


GROUP = ChatTemplate()
