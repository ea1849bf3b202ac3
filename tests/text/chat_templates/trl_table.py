"""The templates that TRL ships, and what becomes of each here.

    python -m tests.text.chat_templates.trl_table

rewrites the tables in docs/chat_templates.md, also that of our named templates (`named_table`). TRL
is not imported: its files are read.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path

from ift_jax.errors import UserError
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.against_transformers import (
    CONVERSATIONS,
    Comparison,
    TransformersReference,
    compare,
    uses,
)
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
    reference = TransformersReference(
        tok.theirs("byte_level", controls(source), formatter.template_source)
    )
    for name, conversation in CONVERSATIONS.items():
        if uses(source, conversation):
            found.results[name] = compare(formatter, reference, conversation)
    return found


def rows():
    return [row(path) for path in sorted(folder().glob("*.jinja"))]


def refusals(results):
    """The reasons of refused conversations, each with the conversations that it holds for."""
    titles: dict[str, list[str]] = {}
    for title, result in results.items():
        if result.refused:
            said, words, fields = result.refused.partition("; remove it")[0].partition(" write ")
            fields = re.sub(r"messages\[\d+\]\.", "", fields) if said.endswith("not") else fields
            reason = said + words + ", ".join(dict.fromkeys(fields.split(", ")))
            titles.setdefault(reason, []).append(title)
    return [f"{', '.join(names)}: {reason}" for reason, names in titles.items()]


def table(found):
    lines = ["| template | tags | conversations | examples | differences by rule | refused |"]
    lines.append("|---|---|---|---|---|---|")
    for item in found:
        taken = [result for result in item.results.values() if result.n_examples]
        notes = sorted(set().union(*(result.notes for result in taken)))
        cells = (
            f"`{item.name}`",
            "yes" if item.tagged else "",
            f"{len(taken)} of {len(item.results)}",
            str(sum(result.n_examples for result in taken)),
            "; ".join(notes),
            item.refused or "; ".join(refusals(item.results)),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def shown_table(begin, end):
    """The table that the page shows between two marks."""
    _, _, rest = PAGE.read_text("utf-8").partition(begin)
    return rest.partition(end)[0].strip()


def _write(begin, end, text):
    before, _, rest = PAGE.read_text("utf-8").partition(begin)
    PAGE.write_text(before + begin + "\n" + text + "\n" + end + rest.partition(end)[2], "utf-8")


def main():
    from tests.text.chat_templates import named_table  # It imports this module.

    _write(named_table.BEGIN, named_table.END, named_table.table(named_table.rows()))
    _write(BEGIN, END, table(rows()))


if __name__ == "__main__":
    main()
