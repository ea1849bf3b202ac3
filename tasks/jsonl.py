"""Your own JSON lines: `--config.data.modules=tasks.jsonl --config.data.root=<file or folder>`.

`register(root)` registers a task `jsonl_<name>` for every `<name>.jsonl` or `<name>.jsonl.gz`
and the mixture `jsonl` of them all, in proportion to their sizes. Every task has the split
"train", and "validation": the file `<name>.validation.jsonl[.gz]` where there is one, else 5%
of the lines (none of fewer than 20). Records are described in `ift_jax.sources.jsonl`; a folder
that holds chat and text-to-text files is read as chat throughout.
"""

import os

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.jsonl import JsonLinesDataSource
from ift_jax.sources.register import register_mixture, register_task, task_name

MIXTURE = "jsonl"
_VALIDATION = ".validation"


def register(root: str) -> tuple[str, ...]:
    """Registers the tasks of a JSON lines file or folder; returns their names."""
    files = _find(root)
    sources = {}
    for stem, splits in files.items():
        if "train" not in splits:
            raise UserError(f"{splits['validation']}: there is no {stem}.jsonl to train on beside")
        sources[stem] = JsonLinesDataSource(splits, carve_validation=True)
    chat = [source.is_chat for source in sources.values()]
    if any(chat) and not all(chat):  # Tasks of a SeqIO mixture must have the same features.
        sources = {
            stem: JsonLinesDataSource(splits, carve_validation=True, as_chat=True)
            for stem, splits in files.items()
        }
    names = [f"jsonl_{task_name(stem)}" for stem in sources]
    for name, source in zip(names, sources.values(), strict=True):
        register_task(name, source, metric_fns=[exact_match, rouge_l])
    register_mixture(MIXTURE, names)
    return tuple(names)


def _find(root: str) -> dict[str, dict[str, str]]:
    """Returns stem -> split -> path."""
    if not root:
        raise UserError("data.root is empty; expected a .jsonl file or a folder of them")
    if os.path.isdir(root):
        paths = [os.path.join(root, name) for name in sorted(os.listdir(root))]
        paths = [path for path in paths if path.endswith((".jsonl", ".jsonl.gz"))]
        if not paths:
            raise UserError(f"{root}: holds no .jsonl or .jsonl.gz file")
    elif os.path.isfile(root):
        paths = [root]
    else:
        raise UserError(f"{root}: does not exist; expected a .jsonl file or a folder of them")
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        name = os.path.basename(path).removesuffix(".gz").removesuffix(".jsonl")
        stem = name.removesuffix(_VALIDATION) if len(paths) > 1 else name
        split = "train" if stem == name else "validation"
        splits = found.setdefault(stem, {})
        if split in splits:
            raise UserError(f"{path} and {splits[split]}: the same name twice")
        splits[split] = path
    return found
