"""FLAN 2021: finetuned language models are zero-shot learners (arXiv:2109.01652).

`register(root)` registers tasks for each of the 70 data sets of `tasks.flan.datasets`. Their names
begin with `flan2021_`, their splits are train, validation and test:

- `NAME`: zero-shot, one of ten templates drawn for each example, options as a list;
- `NAME_one_shot`, `_two_shot`, `_three_shot`, `_five_shot`, `_ten_shot`, `_multi_shot` (1 to
  16): training examples before the query, in the query's template;
- for rank classification, where there are options: `NAME_score_eval` (a template drawn for each
  example), `NAME_score_eval_no_options`, and `NAME_type_K_score_eval` (all in template K). Their
  records have `choices`, a JSON list of the answers to rank.

It also registers mixtures. A training mixture takes at most 30,000 examples of a data set
(`tasks.flan.dataset.TRAIN_CAP`) at a rate of min(examples, 3,000) (`RATE_CAP`):

- `flan2021`, `flan2021_multi_shot`: all clusters;
- `flan2021_without_CLUSTER`, `..._without_CLUSTER_multi_shot`: to test on that cluster; clusters
  that are too close to it (`tasks.flan.datasets.RELATED`) are left out too;
- `flan2021_CLUSTER_all`, `flan2021_CLUSTER_all_score_eval`: the test tasks, at equal rates;
- `flan2021_found`: the tasks of `flan2021` whose data is on this machine.

`ift_jax.preparation.holdout_check` refuses a run that trains on a cluster that it holds out, or on
one too close to it.

Data is looked for in `<root>/<TFDS name>/<split>.jsonl` (or .jsonl.gz, .parquet; with the fields of
TFDS), then in TFDS.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.register import register_mixture
from tasks.flan import prompts
from tasks.flan.dataset import Dataset
from tasks.flan.datasets import CLUSTERS, DATASETS, excluded_with
from tasks.flan.rows import FlanRows
from tasks.flan.source import FlanSource, Form, register_flan_task

# The largest mixing rate of a data set (arXiv:2109.01652, section 2.4: "a mixing rate maximum of
# 3k"). The cap on training examples is `TRAIN_CAP` in tasks/flan/dataset.py.
RATE_CAP = 3_000
SHOTS: Mapping[str, int | str] = {
    "one_shot": 1,
    "two_shot": 2,
    "three_shot": 3,
    "five_shot": 5,
    "ten_shot": 10,
    "multi_shot": "multi",
}


def register(root: str) -> None:
    """Register all tasks and mixtures. No data is read."""
    for dataset in DATASETS.values():
        _register_tasks(dataset, root)
    for shots in ("", "multi_shot"):
        _register_clusters(_with_suffix("flan2021", shots), CLUSTERS, shots)
        for cluster in CLUSTERS:
            name = _with_suffix(f"flan2021_without_{cluster}", shots)
            _register_clusters(name, training_clusters([cluster]), shots)
    for cluster in CLUSTERS:
        _register_evaluation(cluster)
    found = [
        (f"flan2021_{dataset.name}", rate)
        for dataset in DATASETS.values()
        if "train" in dataset.splits and FlanRows(root, dataset.tfds).available
    ]
    if found:
        register_mixture("flan2021_found", found)


def rate(task: seqio.Task) -> float:
    """Return the mixing rate of a task: its number of examples, up to `RATE_CAP`."""
    return seqio.mixing_rate_num_examples(task, maximum=RATE_CAP)


def training_clusters(held_out: Iterable[str]) -> tuple[str, ...]:
    """Return the clusters that may be trained on when those of `held_out` are tested."""
    excluded = {name for cluster in held_out for name in excluded_with(cluster)}
    return tuple(cluster for cluster in CLUSTERS if cluster not in excluded)


def check_clusters(train: Iterable[str], held_out: Iterable[str]) -> None:
    """Check that no run trains on what it tests.

    Raises:
        UserError: A cluster of `train` is held out or too close to one that is.
    """
    train = list(train)
    for cluster in train:
        excluded_with(cluster)  # Raises for a cluster that does not exist.
    for cluster in held_out:
        for close in excluded_with(cluster):
            if close in train:
                why = "" if close == cluster else f", which is too close to {cluster!r}"
                raise UserError(
                    f"FLAN: {cluster!r} is held out, so {close!r}{why} cannot be trained on"
                )


def register_training_mixture(
    name: str, clusters: Sequence[str], held_out: Sequence[str], shots: str = ""
) -> None:
    """Register a mixture of clusters to train on, for a test on others.

    Args:
        name: The mixture's name.
        clusters: The clusters to train on; `register` must have been called.
        held_out: The clusters that the model will be tested on.
        shots: "" (zero-shot) or a key of `SHOTS`.

    Raises:
        UserError: A cluster to train on is held out or too close to one that is.
    """
    check_clusters(clusters, held_out)
    _register_clusters(name, clusters, shots)


def _with_suffix(name: str, suffix: str) -> str:
    return f"{name}_{suffix}" if suffix else name


def _register_clusters(name: str, clusters: Iterable[str], shots: str) -> None:
    """Register a training mixture of all data sets of some clusters."""
    datasets = [DATASETS[dataset] for cluster in clusters for dataset in CLUSTERS[cluster]]
    tasks = [
        _with_suffix(f"flan2021_{dataset.name}", shots)
        for dataset in datasets
        if "train" in dataset.splits
    ]
    register_mixture(name, [(task, rate) for task in tasks])


def _register_evaluation(cluster: str) -> None:
    """Register the mixtures that test on a cluster."""
    names = CLUSTERS[cluster]
    register_mixture(f"flan2021_{cluster}_all", [(f"flan2021_{name}", 1.0) for name in names])
    ranked = [(f"flan2021_{name}_score_eval", 1.0) for name in names if DATASETS[name].choices]
    if ranked:
        register_mixture(f"flan2021_{cluster}_all_score_eval", ranked)


def _register_tasks(dataset: Dataset, root: str) -> None:
    """Register the tasks of a data set, one for each of its forms."""
    for suffix, form in _forms(dataset).items():
        name = _with_suffix(f"flan2021_{dataset.name}", suffix)
        register_flan_task(name, FlanSource(dataset, root, form))


def _forms(dataset: Dataset) -> dict[str, Form]:
    """Return the suffix of a task's name -> the form of its examples."""
    forms = {"": Form()}
    if "train" in dataset.splits:
        for suffix, shots in SHOTS.items():
            forms[suffix] = Form(shots=shots)
    if dataset.choices:
        forms["score_eval"] = Form(ranked=True)
        forms["score_eval_no_options"] = Form(ranked=True, options="none")
        for k in range(_plain_template_count(dataset.templates)):
            forms[f"type_{k}_score_eval"] = Form(ranked=True, template=k)
    return forms


@functools.cache
def _plain_template_count(group: str) -> int:
    return sum(not template.inverted for template in prompts.groups()[group])
