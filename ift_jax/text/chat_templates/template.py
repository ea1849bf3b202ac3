"""A compiled chat template, and the text that it writes."""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jinja2.runtime import new_context

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.sandbox import Sandbox
from ift_jax.text.marks import GENERATION_END, GENERATION_START

# Variables by which templates switch thinking on and off: not fields of a message, nor texts.
SWITCHES = ("enable_thinking", "thinking")
_GENERATION_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


class Rendered(NamedTuple):
    """What a template wrote, in parts that stand outside and inside of `{% generation %}` in turn.

    The first part stands outside and may be empty. The last part stands inside only if a
    `{% break %}` left its block.
    """

    parts: list[str]

    @property
    def text(self) -> str:
        """The whole text."""
        return self.parts[0] if len(self.parts) == 1 else "".join(self.parts)

    @property
    def n_generated(self) -> int:
        """The number of parts inside of `{% generation %}`."""
        return len(self.parts) // 2


class Template:
    """A compiled chat template.

    Attributes:
        source: The Jinja text.
        name: What error messages call the template.
        has_generation_tags: Whether it marks answers by `{% generation %}`.
        switches: The variables that switch thinking on and off, but for those that are set.
        is_switched: Whether the text itself sets one of them.
    """

    def __init__(self, source: str, name: str, options: frozenset[str] = frozenset()):
        """Compile the template.

        Args:
            source: The Jinja text.
            name: What error messages call the template.
            options: The variables that the text itself sets.

        Raises:
            UserError: The text is no template, or uses what it must not.
        """
        self.name = name
        self.source = source
        self.has_generation_tags = bool(_GENERATION_TAG.search(source))
        self.switches = tuple(
            switch
            for switch in SWITCHES
            if switch not in options and re.search(rf"(?<![\w.'\"]){switch}(?![\w'\"])", source)
        )
        self.is_switched = bool(options & set(SWITCHES))
        self._sandbox = Sandbox()
        self._template = self._attempt("", self._sandbox.from_string, source)

    def render(self, where: str, n_characters: int, /, **variables: Any) -> Rendered:
        """Render the template.

        Args:
            where: The record's place, for errors.
            n_characters: About the size of the conversation, which bounds the work.
            **variables: Plain data: `messages`, `tools` and so on.

        Raises:
            UserError: What the template itself raises, or that it does too much.
        """
        self._sandbox.start(n_characters)
        marked = self._attempt(where, self._run, variables)
        return _split_at_marks(marked, where)

    def _run(self, variables: Mapping[str, Any]) -> str:
        # This is `jinja2.Template.render` without its work for blocks, imports and tracebacks.
        template, sandbox = self._template, self._sandbox
        variables = {**sandbox.globals, **variables}
        context = new_context(sandbox, template.name, {}, variables, shared=True)
        return "".join(template.root_render_func(context))

    def _attempt(self, where: str, function: Callable[..., Any], argument: Any) -> Any:
        """Call a function of Jinja; whatever it raises becomes a UserError of one line."""
        try:
            return function(argument)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            line = getattr(error, "lineno", None)
            at = f" (its line {line})" if line else ""
            place = f"{where}: " if where else "format."
            raise UserError(f"{place}template {self.name!r}: {reason}{at}") from error


def _split_at_marks(marked: str, where: str) -> Rendered:
    """Split a text at its marks and drop the marks."""
    # A regular expression would take twice as long.
    before, *blocks = marked.split(GENERATION_START)
    parts = [before]
    in_turn = GENERATION_END not in before
    for block in blocks:
        inside_and_after = block.split(GENERATION_END)
        # Only the last block may lack its end, so parts are even here if an earlier one does.
        in_turn = in_turn and len(inside_and_after) <= 2 and len(parts) % 2 == 1
        parts += inside_and_after
    if not in_turn:
        raise UserError(f"{where}: the template nests or breaks its generation")
    return Rendered(parts)


compile_template = functools.lru_cache(maxsize=32)(Template)
