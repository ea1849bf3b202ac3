"""Few-shot layouts: how solved examples and the query follow one another in a prompt."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from ift_jax.sources.demonstrations import PromptLimit, demonstrations_that_fit


class Exemplar(NamedTuple):
    """A solved example as it stands in a prompt."""

    input: str
    target: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """The texts that stand around exemplars and query.

    Attributes:
        before_input: The text before every input.
        before_target: The text between every input and its target.
        between: The text after every exemplar.
        opening: The text before the first exemplar. Without exemplars there is none.
    """

    before_input: str = ""
    before_target: str = "\n"
    between: str = "\n\n"
    opening: str = ""

    def prompt(self, exemplars: Sequence[tuple[str, str]], query: str) -> str:
        """Return the exemplars with their targets, followed by the query."""
        shown = [
            f"{self.before_input}{text}{self.before_target}{target}{self.between}"
            for text, target in exemplars
        ]
        opening = self.opening if shown else ""
        last = f"{self.before_input}{query}{self.before_target}".rstrip()
        return opening + "".join(shown) + last

    def prompt_that_fits(
        self, exemplars: Sequence[Exemplar], query: str, max_characters: int
    ) -> str:
        """Return the prompt with as many exemplars, from the first, as fit into it.

        Without any exemplar to choose from, the prompt is the bare query.
        """
        if not exemplars:
            return query
        limit = PromptLimit(max_characters)
        whole = self.prompt(exemplars, query)
        if limit.fits(whole):  # Nearly always: this saves a prompt for each exemplar.
            return whole

        def fits(shown: Sequence[Exemplar]) -> bool:
            return limit.fits(self.prompt(shown, query))

        shown: list[Exemplar] = demonstrations_that_fit(exemplars, fits)
        return self.prompt(shown, query)


PLAIN_LAYOUT = Layout()
# Ours. Every template reads well in each of them.
LAYOUTS = (
    PLAIN_LAYOUT,
    Layout("", "\n\n", "\n\n\n"),
    Layout("", "\n", "\n###\n"),
    Layout("", "\n-> ", "\n---\n"),
    Layout("Input: ", "\nOutput: "),
    Layout("Instruction: ", "\nReply: "),
    Layout("User: ", "\nAssistant: "),
    Layout("[Task]\n", "\n[Solution]\n"),
    Layout("", "\n=> ", "\n\n", "Do the last one as the others were done.\n\n"),
    Layout("Prompt:\n", "\nResponse:\n", "\n\n", "Some prompts with their responses:\n\n"),
)
