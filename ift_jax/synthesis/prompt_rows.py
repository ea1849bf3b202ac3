"""The prompts that completions are sampled for, and the training rows that these become."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.sources.row_files import read_rows
from ift_jax.sources.row_values import plain
from ift_jax.text.records import Record
from ift_jax.text.rows.parse_record import parse_record


class PromptRow(NamedTuple):
    """A prompt.

    Attributes:
        where: Its place for messages, such as "prompts.jsonl:3".
        row: The fields of its row, which a reward may read.
        record: What the model answers.
    """

    where: str
    row: Mapping[str, Any]
    record: Record


def read_prompt_rows(path: str, prompt_field: str = "") -> list[PromptRow]:
    """Read the prompts of a file: JSON lines, a JSON array, Parquet, or Arrow.

    Args:
        path: The file; its rows are of any layout that training reads, with or without an answer.
        prompt_field: The field whose text is the prompt, for rows of another layout.

    Raises:
        UserError: The file cannot be read or holds no prompt, or a row is none.
    """
    try:
        prompts = [
            _prompt(stored.place, stored.fields(), prompt_field) for stored in read_rows(path)
        ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not prompts:
        raise UserError(f"{path}: holds no prompt; expected a row for each")
    return prompts


def _prompt(where: str, row: Mapping[str, Any], prompt_field: str) -> PromptRow:
    fields = row
    if prompt_field:
        text = row.get(prompt_field)
        if not isinstance(text, str):
            there = ", ".join(map(str, row)) or "none"
            raise UserError(
                f"{where}: no text in field {prompt_field!r} (--prompt-field); there: {there}"
            )
        fields = {"inputs": text}
    record = parse_record(plain(fields), where, prompt_only=True)
    if record.tools or record.template_options or record.is_text:
        found = "is a plain text" if record.is_text else "has tools or options of the template"
        raise UserError(f"{where}: the row {found}; expected the messages before an answer alone")
    return PromptRow(where, row, record)


def training_row(prompt: PromptRow, completion: str) -> dict[str, Any]:
    """Return a row that trains a completion as the answer to its prompt."""
    messages = prompt.record.messages
    if prompt.record.text_to_text:
        return {"inputs": messages[0].content, "targets": completion}
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    # Only the new answer is trained, whatever the prompt's own turns are.
    earlier = [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
    return {"messages": [*earlier, {"role": "assistant", "content": completion}]}
