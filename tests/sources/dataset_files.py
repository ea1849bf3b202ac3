"""Small files in the published forms, and reading tasks as SeqIO gives them."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import seqio

# A data set's file in promptsource, of `text` and a `label` of 0 or 1.
TEMPLATES = """templates:
  0: !Template
    name: ask
    id: 0
    jinja: "{{text}}? ||| {{answer_choices[label]}}"
    answer_choices: no ||| yes
    metadata: !TemplateMetadata
      original_task: true
      metrics: [Accuracy]
"""


def write(path, rows):
    """Writes rows in the form that the file's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=64)
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        data = gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode()
        path.write_bytes(data)


def records(task, split, **options):
    """The records of a registered task's source."""
    return list(seqio.TaskRegistry.get(task).source.records(split, **options))


def messages(record):
    """A chat record's turns as (role, content)."""
    return [(m["role"], m["content"]) for m in json.loads(record["messages"])]
