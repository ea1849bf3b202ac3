"""The templates that TRL ships, and what becomes of each here.

    python -m tests.text.chat_templates.trl_table

rewrites the table in docs/chat_templates.md. TRL is not imported: its files are read.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path

from ift_jax.errors import UserError
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.against_transformers import CONVERSATIONS, Comparison, compare, uses
from tests.text.formatters import make_formatter

PAGE = Path(__file__).parents[3] / "docs" / "chat_templates.md"
BEGIN, END = "<!-- TRL: begin -->\n", "<!-- TRL: end -->\n"
_CONTROLS = re.compile(
    r"<｜[^｜>]*｜>|<\|[^|<>\s]+\|>|<\|[a-z_]+>|<[a-z_]+\|>|<\|\"\|>|\[gMASK\]"
    r"|<(?:start_of_turn|end_of_turn|end_of_utterance|start_of_image|image|sop)>"
)
DATE = 'date="2026-01-31"'


def folder():
    """The folder of TRL's templates; None if TRL is not installed."""
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "chat_templates"


def controls(source):
    return tuple(sorted(set(_CONTROLS.findall(source)) - {"<s>", "</s>"}))


@dataclasses.dataclass
class Row:
    """What becomes of one template."""

    name: str
    tagged: bool
    refused: str = ""  # Why the template itself is refused.
    results: dict[str, Comparison] = dataclasses.field(default_factory=dict)

    @property
    def faults(self):
        return [f"{name}: {fault}" for name, r in self.results.items() for fault in r.faults]


def row(path):
    """Compares one template with `transformers` on all conversations that it has words for."""
    source = path.read_text("utf-8")
    found = Row(path.stem, "endgeneration %}" in source)
    options = (DATE,) if "strftime_now" in source else ()
    try:
        formatter = make_formatter(
            tok.ours("byte_level", controls(source), source),
            template="model",
            template_options=options,
            over_length="error",
        )
    except UserError as error:
        found.refused = str(error)
        return found
    reference = tok.theirs("byte_level", controls(source), formatter.template_source)
    for name, conversation in CONVERSATIONS.items():
        if uses(source, conversation):
            found.results[name] = compare(formatter, reference, conversation)
    return found


def rows():
    return [row(path) for path in sorted(folder().glob("*.jinja"))]


def table(found):
    lines = ["| template | tags | conversations | examples | differences by rule | refused |"]
    lines.append("|---|---|---|---|---|---|")
    for item in found:
        taken = [result for result in item.results.values() if result.n_examples]
        notes = sorted(set().union(*(result.notes for result in taken)))
        refused = [f"{name}: {r.refused}" for name, r in item.results.items() if r.refused]
        cells = (
            f"`{item.name}`",
            "yes" if item.tagged else "",
            f"{len(taken)} of {len(item.results)}",
            str(sum(result.n_examples for result in taken)),
            "; ".join(notes),
            item.refused or "; ".join(refused),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n" + table(rows()) + "\n" + END + after, "utf-8")


if __name__ == "__main__":
    main()
