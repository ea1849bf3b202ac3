"""Your own JSON lines: `--config.data.modules=tasks.jsonl --config.data.root=<file or folder>`.

`register(root)` registers a task `jsonl_<name>` for every `<name>.jsonl` or `<name>.jsonl.gz`, and
the mixture `jsonl` of all of them, in proportion to their sizes. Every task has the split "train".
Its split "validation" is the file `<name>.validation.jsonl[.gz]` if there is one, or else 5% of the
lines (none if there are fewer than 20). `ift_jax.sources.jsonl` describes the records; a folder
with both chat and text-to-text files is read as chat throughout.
"""

import os

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.jsonl import JsonLinesDataSource
from ift_jax.sources.register import register_mixture, register_task, task_name

MIXTURE = "jsonl"
_VALIDATION = ".validation"


def register(root: str) -> tuple[str, ...]:
    """Register the tasks of a JSON lines file or folder, and return their names.

    Raises:
        UserError: There is no such file or folder, or a file has no file to train on beside it.
    """
    files = _find(root)
    for stem, splits in files.items():
        if "train" not in splits:
            raise UserError(f"{splits['validation']}: there is no {stem}.jsonl to train on beside")
    sources = {
        stem: JsonLinesDataSource(splits, carve_validation=True) for stem, splits in files.items()
    }
    is_chat = [source.is_chat for source in sources.values()]
    if any(is_chat) and not all(is_chat):
        # The tasks of a SeqIO mixture must have the same features.
        sources = {
            stem: JsonLinesDataSource(splits, carve_validation=True, as_chat=True)
            for stem, splits in files.items()
        }
    names = []
    for stem, source in sources.items():
        name = f"jsonl_{task_name(stem)}"
        register_task(name, source, metric_fns=[exact_match, rouge_l])
        names.append(name)
    register_mixture(MIXTURE, names)
    return tuple(names)


def _find(root: str) -> dict[str, dict[str, str]]:
    """Return stem -> split -> path."""
    paths = _paths(root)
    found: dict[str, dict[str, str]] = {}
    for path in paths:
        name = os.path.basename(path).removesuffix(".gz").removesuffix(".jsonl")
        # A file that was given alone is trained on, whatever its name is.
        stem = name.removesuffix(_VALIDATION) if len(paths) > 1 else name
        split = "train" if stem == name else "validation"
        splits = found.setdefault(stem, {})
        if split in splits:
            raise UserError(f"{path} and {splits[split]}: the same name twice")
        splits[split] = path
    return found


def _paths(root: str) -> list[str]:
    if not root:
        raise UserError("data.root is empty; expected a .jsonl file or a folder of them")
    if os.path.isfile(root):
        return [root]
    if not os.path.isdir(root):
        raise UserError(f"{root}: does not exist; expected a .jsonl file or a folder of them")
    names = [name for name in sorted(os.listdir(root)) if name.endswith((".jsonl", ".jsonl.gz"))]
    if not names:
        raise UserError(f"{root}: holds no .jsonl or .jsonl.gz file")
    return [os.path.join(root, name) for name in names]
