"""JSON lines as a data source reads them; Python's `json` judges each line."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import spoiled_json

_TURNS = [
    {"role": "system", "content": "You are a clock."},
    {"role": "user", "content": "Now?"},
    {"role": "assistant", "content": "Noon.", "weight": 1},
]
_CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
_TOOL_TURNS = [
    {"role": "user", "content": "Add 1 and 1."},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": "2", "tool_call_id": "a"},
    {"role": "assistant", "content": "Two."},
]
_TOOL = {"type": "function", "function": {"name": "f", "description": "adds", "parameters": {}}}
RECORDS: tuple[dict[str, Any], ...] = (
    {"inputs": "2 + 2?", "targets": "4", "references": ["4", "four"]},
    {"messages": _TURNS},
    {"messages": _TOOL_TURNS, "tools": [_TOOL]},
    {"prompt": "2 + 2?", "completion": "4"},
    {"instruction": "Add.", "input": "2 and 2", "output": "4"},
)


class JsonLines(Group):
    """Three records of one layout, one of them spoiled, are read as training reads them."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        record = rng.choice(RECORDS)
        lines = [json.dumps(record).encode() for _ in range(3)]
        which = rng.randrange(3)
        lines[which], change = spoiled_json(record, rng)
        content = b"\n".join(lines) + b"\n"
        path = folder / "data.jsonl"
        if rng.random() < 0.15:
            path = folder / "data.jsonl.gz"
            content = gzip.compress(content, mtime=0)
            if rng.random() < 0.7:
                content, change = spoiled_bytes(content, rng)
        path.write_bytes(content)
        return Case(f"line {which + 1}: {change}", path)

    def read(self, case: Case) -> Any:
        from ift_jax.sources.row_files_source import RowFilesSource

        source = RowFilesSource({"train": str(case.path)})
        for index, item in enumerate(source.items("train")):
            source.render(item, "train", index, 0)
        return list(source.parsed("train", "task"))

    def complaint(self, case: Case, value: Any) -> str:
        opened = gzip.open(case.path) if case.path.suffix == ".gz" else open(case.path, "rb")
        with opened as file:
            lines = [line for line in file if line.strip()]
        if len(lines) != len(value):
            return f"{len(lines)} lines gave {len(value)} records"
        for line, record in zip(lines, value, strict=True):
            try:
                fields = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse)
            except (ValueError, RecursionError) as error:
                return f"json refuses {line[:80]!r}: {error}"
            texts = [message.content for message in record.messages]
            if isinstance(fields.get("targets"), str) and texts[-1] != fields["targets"]:
                return f"the answer of {line[:80]!r} is read as {texts[-1]!r}"
        return ""


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


GROUP = JsonLines()
