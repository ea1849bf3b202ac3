"""Self-Instruct (Wang et al. 2022, arXiv:2212.10560): the released instances, and their prompts.

`register(root)` registers

- `self_instruct_generated`: the 82K generated instances, all_instances_82K.jsonl;
- `self_instruct_seeds`: the instances of the 175 tasks written by people, seed_tasks.jsonl;
- `self_instruct_user_oriented`: the 252 evaluation tasks, user_oriented_instructions.jsonl, with
  the split "test" alone;
- the mixture `self_instruct`: the first two, in proportion to their sizes.

The files are looked for in the root and in <root>/self_instruct. An instance is written in one of
seven layouts if it has an input, and in one of six if it has none. The paper has as many layouts;
the texts of these are ours. As in the paper, half of the inputs lose the name of their only field
("Text: ...") and their empty lines. Both are drawn by (seed, split, index), so the variant of
another epoch has other layouts. The test split has one fixed layout. One of twenty seed tasks is
"validation", and one of a hundred generated instances; "all" has every row.
"""

import re
from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.rows import Render, Row, RowsSource

MIXTURE = "self_instruct"
WITH_INPUT = (
    "{instruction}\n\n{input}",
    "{instruction}\n\n{input}\n\nAnswer:",
    '{instruction}\n"""\n{input}\n"""',
    "Instruction: {instruction}\nText: {input}\nAnswer:",
    "Given:\n{input}\n\n{instruction}",
    "Your job: {instruction}\n\nWhat you work on: {input}\n\nYour result:",
    "# {instruction}\n\n{input}\n\n# Answer",
)
WITHOUT_INPUT = (
    "{instruction}",
    "{instruction}\n\nAnswer:",
    "{instruction} Answer:",
    "Instruction: {instruction}\nAnswer:",
    "Your job: {instruction}\n\nYour result:",
    "# {instruction}\n\n# Answer",
)
_FIELD = re.compile(r"(\w+):")


def register(root: str) -> None:
    """Register the three tasks and the mixture."""
    generated = _source(root, "all_instances_82K.jsonl", "train", _drawn, keep_out=100)
    seeds = _source(root, "seed_tasks.jsonl", "train", _drawn, keep_out=20)
    user_oriented = _source(root, "user_oriented_instructions.jsonl", "test", _fixed)
    metric_fns = [exact_match, rouge_l]
    register_task("self_instruct_generated", generated, metric_fns=metric_fns)
    register_task("self_instruct_seeds", seeds, metric_fns=metric_fns)
    register_task("self_instruct_user_oriented", user_oriented, metric_fns=metric_fns)
    register_mixture(MIXTURE, ["self_instruct_generated", "self_instruct_seeds"])


def _source(root: str, file: str, split: str, render: Render, keep_out: int = 0) -> RowsSource:
    return RowsSource(
        "self_instruct",
        render,
        root,
        splits={split: split},
        names={split: (file,)},
        hub=False,
        fields=("inputs", "targets"),
        keep_out=keep_out,
        expand=_instances,
    )


def _instances(row: Row) -> Sequence[Row]:
    instruction = row["instruction"]
    return [
        {"instruction": instruction, "input": instance["input"], "output": instance["output"]}
        for instance in row.get("instances", [row])
    ]


def _drawn(row: Row, draws: Draws) -> Mapping[str, str]:
    text = row["input"].strip()
    if draws.below(2):
        text = without_field_name(text)
    layout = draws.choice(WITH_INPUT if text else WITHOUT_INPUT)
    return _record(row, layout, text)


def _fixed(row: Row, draws: Draws) -> Mapping[str, str]:
    text = row["input"].strip()
    layouts = WITH_INPUT if text else WITHOUT_INPUT
    return _record(row, layouts[0], text)


def _record(row: Row, layout: str, text: str) -> Mapping[str, str]:
    # Not str.format, and both at once: the texts may contain braces.
    parts = {"{instruction}": row["instruction"].strip(), "{input}": text}
    inputs = re.sub(r"\{instruction\}|\{input\}", lambda match: parts[match.group()], layout)
    return {"inputs": inputs, "targets": row["output"].strip()}


def without_field_name(text: str) -> str:
    """Return an input without empty lines, and without its field's name if it has only one."""
    if len(set(_FIELD.findall(text))) == 1:
        text = text.split(":", 1)[1].strip()
    return text.replace("\n\n", "\n")
