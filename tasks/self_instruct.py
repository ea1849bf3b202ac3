"""Self-Instruct (Wang et al. 2022, arXiv:2212.10560): the released instances, and their prompts.

`register(root)` registers

- `self_instruct_generated`: the 82K generated instances, all_instances_82K.jsonl;
- `self_instruct_seeds`: the instances of the 175 tasks written by people, seed_tasks.jsonl;
- `self_instruct_user_oriented`: the 252 evaluation tasks, user_oriented_instructions.jsonl,
  split "test" alone;
- the mixture `self_instruct`: the first two, in proportion to their sizes.

The files are looked for in the root and in <root>/self_instruct. An instance is written in one of
seven layouts if it has an input, in one of six if it has none: as many as in the paper, written by
us. As there, half of the inputs lose the name of their only field ("Text: ...") and their empty
lines. Both are drawn by (seed, split, index), so another epoch's variant has other layouts. The
test split has one fixed layout. Of the seeds one task in twenty is "validation", of the generated
instances one in a hundred; "all" has everything.
"""

import re
from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.rows import Row, RowsSource

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
    """Registers the three tasks and the mixture."""
    for name, file, splits, keep_out, render in (
        ("generated", "all_instances_82K.jsonl", "train", 100, _drawn),
        ("seeds", "seed_tasks.jsonl", "train", 20, _drawn),
        ("user_oriented", "user_oriented_instructions.jsonl", "test", 0, _fixed),
    ):
        source = RowsSource(
            "self_instruct",
            render,
            root,
            splits={splits: splits},
            names={splits: (file,)},
            hub=False,
            fields=("inputs", "targets"),
            keep_out=keep_out,
            expand=_instances,
        )
        register_task(f"self_instruct_{name}", source, metric_fns=[exact_match, rouge_l])
    register_mixture(MIXTURE, ["self_instruct_generated", "self_instruct_seeds"])


def _instances(row: Row) -> Sequence[Row]:
    instances = row.get("instances", [row])
    return [
        {"instruction": row["instruction"], "input": each["input"], "output": each["output"]}
        for each in instances
    ]


def _drawn(row: Row, draws: Draws) -> Mapping[str, str]:
    text = row["input"].strip()
    if draws.below(2):
        text = without_field_name(text)
    layout = draws.choice(WITH_INPUT if text else WITHOUT_INPUT)
    return _record(row, layout, text)


def _fixed(row: Row, draws: Draws) -> Mapping[str, str]:
    text = row["input"].strip()
    return _record(row, (WITH_INPUT if text else WITHOUT_INPUT)[0], text)


def _record(row: Row, layout: str, text: str) -> Mapping[str, str]:
    parts = {"{instruction}": row["instruction"].strip(), "{input}": text}
    inputs = re.sub(r"\{instruction\}|\{input\}", lambda match: parts[match.group()], layout)
    return {"inputs": inputs, "targets": row["output"].strip()}


def without_field_name(text: str) -> str:
    """Returns an input without the name of its field, if it has only one, and empty lines."""
    if len(set(_FIELD.findall(text))) == 1:
        text = text.split(":", 1)[1].strip()
    return text.replace("\n\n", "\n")
