"""Your own files of rows: `--config.data.modules=tasks.jsonl --config.data.root=<file or folder>`.

A file holds JSON lines (.jsonl, .jsonl.gz, .json), one array of objects (.json), Parquet or Arrow.
`register(root)` registers a task `jsonl_<name>` for every file, and the mixture `jsonl` of all of
them, in proportion to their sizes. Every task has the split "train". Its split "validation" is the
file `<name>.validation.<ending>` if there is one, or else 5% of the rows (none if there are fewer
than 20). `ift_jax.text.rows.shapes` lists what rows may be; a folder with both conversations and
pairs of texts is read as conversations throughout.
"""

import os

from ift_jax.config.data_items import ENDINGS, files_in, validation_beside
from ift_jax.errors import UserError
from ift_jax.io.hub_names import hub_hint
from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture, register_task, task_name
from ift_jax.sources.row_files_source import sources_of_a_mixture
from ift_jax.text.rows.parse_record import AUTOMATIC, RowOptions

MIXTURE = "jsonl"
_VALIDATION = ".validation"


def register(root: str, row_options: RowOptions = AUTOMATIC) -> tuple[str, ...]:
    """Register the tasks of a file or folder of rows, and return their names.

    Raises:
        UserError: There is no such file or folder, or a file has no file to train on beside it.
    """
    files = _find(root)
    for stem, splits in files.items():
        if "train" not in splits:
            raise UserError(f"{splits['validation']}: there is no {stem} to train on beside it")
    sources = sources_of_a_mixture(files.values(), row_options)
    names = []
    for stem, source in zip(files, sources, strict=True):
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
        name = os.path.basename(path)
        for ending in ENDINGS:
            name = name.removesuffix(ending)
        # A file that was given alone is trained on, whatever its name is.
        stem = name.removesuffix(_VALIDATION) if len(paths) > 1 else name
        split = "train" if stem == name else "validation"
        splits = found.setdefault(stem, {})
        if split in splits:
            raise UserError(f"{path} and {splits[split]}: the same name twice")
        splits[split] = path
    return found


def _paths(root: str) -> list[str]:
    expected = f"a file that ends in {', '.join(ENDINGS)}, or a folder of them"
    if not root:
        raise UserError(f"data.root is empty; expected {expected}")
    if os.path.isfile(root):
        beside = validation_beside(root)
        return [root, beside] if beside else [root]
    if not os.path.isdir(root):
        raise UserError(
            f"{root}: does not exist; expected {expected}{hub_hint(root, is_data=True)}"
        )
    return files_in(root, root)
