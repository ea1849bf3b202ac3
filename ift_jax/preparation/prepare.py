"""Preparation: builds the token stores of a mixture's tasks, once.

The steps: find the tasks, get the tokenizer, plan the stores, build those that are missing, open
them all. SeqIO and TensorFlow are imported inside the functions, if at all: see
`ift_jax.preparation.open_or_prepare`.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ift_jax.config import data_items
from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.errors import UserError, counted, listed
from ift_jax.io.files import Log
from ift_jax.io.outputs import check_folder
from ift_jax.io.paths import is_remote, why_bucket_not_writable
from ift_jax.metrics import SEQIO_METRICS, metric_names
from ift_jax.preparation import fingerprints
from ift_jax.preparation.beam import BeamWorkers
from ift_jax.preparation.build_stores import build_stores, find_damage
from ift_jax.preparation.drop_limits import open_usable
from ift_jax.preparation.executors import Executor, Local
from ift_jax.preparation.module_files import check_as_imported, module_files
from ift_jax.preparation.row_notes import log_row_notes
from ift_jax.preparation.store_plan import WantedStore, wanted_stores
from ift_jax.preparation.tensorflow_import import quiet_tensorflow_import
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.parse_record import RowOptions
from ift_jax.text.tokenizers.base import Tokenizer
from ift_jax.text.tokenizers.load import load_tokenizer, tokenizer_file_paths

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A mixture whose stores all exist.

    Attributes:
        tokenizer: The run's tokenizer.
        tokenizer_path: Its path, in the store folder if the run trained it.
        mixture: The tasks, their rates and stores.
        files: All files that were read: modules, data, tokenizer.
        data_files: The data files among `files`.
        left_out: Lines on the tasks of the mixture that are not read.
    """

    tokenizer: Tokenizer
    tokenizer_path: str
    mixture: Mixture
    files: list[str]
    data_files: list[str]
    left_out: list[str]


def prepare(
    config: Config, which: str = "train", *, log: Log = print, beam: Sequence[str] = ()
) -> Prepared:
    """Build the stores of a mixture that are missing, then open all of them.

    Args:
        config: The run's config.
        which: "train", "eval" or "heldout".
        log: Called with each progress line.
        beam: Flags of Beam (see `beam.checked_options`), whose workers then make the parts.

    Raises:
        UserError: A mistake in the config, in a task or in its data, or more examples of a task
            were dropped than `data.max_dropped_fraction` allows.
    """
    with quiet_tensorflow_import():
        from ift_jax.preparation import holdout_check, run_tokenizer, seqio_registry
        from ift_jax.preparation.mixing_rates import mixing_rates
        from ift_jax.preparation.read_examples import is_text_task
        from ift_jax.preparation.source_files import source_files
        from ift_jax.preparation.task_checks import check_task
        from ift_jax.preparation.tokenized_tasks import check_vocabulary

    data = config.data
    name, split, field = mixture_and_split(config, which)
    if is_remote(data.root) and data_items.MODULE not in data.modules:
        raise UserError(f"data.root: {data.root} is in a bucket; expected a copy on this machine")
    seqio_registry.import_modules(data.modules, data.root, RowOptions.of(data))
    holdout_check.check_config(data)
    provider = seqio_registry.resolve(name, field)
    tasks, left_out = seqio_registry.select_tasks(provider, split, field)
    for task in tasks:
        check_task(task)
    if not is_remote(data.store_dir) and not os.path.isdir(data.store_dir):
        check_folder(data.store_dir, "data.store_dir")
        os.makedirs(data.store_dir)

    modules = module_files(data.modules)
    check_as_imported(modules)
    modules_digest = fingerprints.code_digest(modules)
    tokenizer_path = run_tokenizer.tokenizer_path(config, modules_digest, log)
    tokenizer = load_tokenizer(tokenizer_path, config.tokenizer)
    for task in tasks:
        if not is_text_task(task):
            check_vocabulary(task, tokenizer)

    formatter = ExampleFormatter.from_config(config, tokenizer)
    stores = wanted_stores(config, tasks, split, formatter, modules_digest)
    damage = find_damage(stores, tokenizer.vocab_size, log)
    for why in damage.values():
        log(f"{why}: it is made again")
    missing = [store for store in stores if not store.exists or store.folder in damage]
    if missing:
        _check_bucket_takes_stores(data.store_dir)
        n_stores = counted(len(stores), "store")
        log(f"preparing {len(missing)} of {n_stores} of {name!r}, split {split!r}")
        with _executor(config, missing, formatter, tokenizer_path, beam) as executor:
            build_stores(config, missing, tokenizer.vocab_size, executor, log)

    names = [task.name for task in tasks]
    folders = [store.folder for store in stores]
    opened = open_usable(folders, names, tokenizer.vocab_size, data.max_dropped_fraction, log)
    log_row_notes(names, opened, {store.folder for store in missing}, log)
    counts = dict(zip(names, map(len, opened), strict=True))
    rates = mixing_rates(provider, tasks, split, counts)
    mixture = _drawn_tasks(tasks, rates, opened)
    if at_rate_0 := sorted(set(names) - set(mixture.tasks)):
        left_out.append(seqio_registry.left_out_at_rate_0(provider, at_rate_0))
    data_files = sorted({path for task in tasks for path in source_files(task, split)})
    return Prepared(
        tokenizer=tokenizer,
        tokenizer_path=tokenizer_path,
        mixture=mixture,
        files=[*map(str, modules), *data_files, *tokenizer_file_paths(tokenizer_path)],
        data_files=data_files,
        left_out=left_out,
    )


def _executor(
    config: Config,
    missing: Sequence[WantedStore],
    formatter: ExampleFormatter,
    tokenizer_path: str,
    beam: Sequence[str],
) -> contextlib.AbstractContextManager[Executor]:
    """Return what makes the parts of stores: Beam's workers, or processes of this machine."""
    if beam:
        return contextlib.nullcontext(BeamWorkers(config, tokenizer_path, beam))
    by_name = {store.task.name: store.task for store in missing}
    examples = sum(part.examples for store in missing for part in store.parts)
    return Local(config, by_name, formatter, tokenizer_path, examples)


def _check_bucket_takes_stores(store_dir: str) -> None:
    """Raise a UserError if stores are to be made in a bucket that may only be read."""
    if is_remote(store_dir) and (why := why_bucket_not_writable(store_dir)):
        raise UserError(f"data.store_dir {why}")


def _drawn_tasks(
    tasks: Sequence["seqio.Task"], rates: Sequence[float], stores: Sequence[TokenStore]
) -> Mixture:
    """Return the mixture of the tasks that are drawn: a rate function may give 0."""
    drawn = [i for i, rate in enumerate(rates) if rate]
    if not drawn:
        raise UserError(f"every rate is 0: no task is drawn of {listed([t.name for t in tasks])}")
    return Mixture(
        [tasks[i].name for i in drawn],
        np.array([rates[i] for i in drawn], np.float64),
        [stores[i] for i in drawn],
        [_metric_names(tasks[i]) for i in drawn],
    )


def _metric_names(task: "seqio.Task") -> list[str]:
    """Return the task's metrics as an evaluation finds them; see `ift_jax.metrics.metric_names`."""
    try:
        has_objects = len(task.metric_objs) > len(task.metric_fns)
    except ValueError:  # A metric has other arguments than SeqIO's: the evaluation reports it.
        return [SEQIO_METRICS]
    return [SEQIO_METRICS] if has_objects else metric_names(task.metric_fns)
