"""FLAN 2021: finetuned language models are zero-shot learners (arXiv:2109.01652).

`register(root)` registers, for each of the 70 datasets of `flan_datasets` (names begin with
`flan2021_`; splits train, validation, test):

- `NAME`: zero-shot, one of ten templates drawn for each example, options as a list;
- `NAME_one_shot`, `_two_shot`, `_three_shot`, `_five_shot`, `_ten_shot`, `_multi_shot` (1 to
  16): with training examples before the query, in the query's template;
- where there are options, for rank classification: `NAME_score_eval` (a template drawn for each
  example), `NAME_score_eval_no_options`, and `NAME_type_K_score_eval` (all in template K). Their
  records have `choices`, a JSON list of the answers to be ranked.

Mixtures, by min(examples, 3,000) with at most 30,000 examples a dataset:

- `flan2021`, `flan2021_multi_shot`: all clusters;
- `flan2021_without_CLUSTER`, `..._without_CLUSTER_multi_shot`: for testing on that cluster; also
  without the clusters that are too close to it (`flan_datasets.RELATED`);
- `flan2021_CLUSTER_all`, `flan2021_CLUSTER_all_score_eval`: what is tested on, equal rates;
- `flan2021_found`: of `flan2021`, the datasets whose data is on this machine.

A run that trains on a cluster that it holds out, or on one too close to it, is refused
(`ift_jax.preparation.holdout_check`).

Data is looked for in `<root>/<TFDS name>/<split>.jsonl` (or .jsonl.gz, .parquet; TFDS's fields),
then in TFDS.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.register import register_mixture
from tasks.flan import prompts as prompts
from tasks.flan.dataset import Dataset
from tasks.flan.datasets import CLUSTERS, DATASETS, excluded_with
from tasks.flan.source import FlanSource, Form, Rows, register_flan_task

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
    """Registers all tasks and mixtures; reads no data."""
    for dataset in DATASETS.values():
        _register_dataset(dataset, root)
    for shots in ("", "multi_shot"):
        _mixture(_name("flan2021", shots), CLUSTERS, shots)
        for cluster in CLUSTERS:
            rest = training_clusters([cluster])
            _mixture(_name(f"flan2021_without_{cluster}", shots), rest, shots)
    for cluster, names in CLUSTERS.items():
        register_mixture(f"flan2021_{cluster}_all", [(f"flan2021_{name}", 1.0) for name in names])
        ranked = [name for name in names if DATASETS[name].choices]
        if ranked:
            tasks = [(f"flan2021_{name}_score_eval", 1.0) for name in ranked]
            register_mixture(f"flan2021_{cluster}_all_score_eval", tasks)
    found = [
        (f"flan2021_{dataset.name}", rate)
        for dataset in DATASETS.values()
        if "train" in dataset.splits and Rows(root, dataset.tfds).available
    ]
    if found:
        register_mixture("flan2021_found", found)


def rate(task: seqio.Task) -> float:
    """Examples-proportional with FLAN's cap."""
    return seqio.mixing_rate_num_examples(task, maximum=RATE_CAP)


def training_clusters(held_out: Iterable[str]) -> tuple[str, ...]:
    """The clusters that may be trained on when these are tested."""
    excluded = {name for cluster in held_out for name in excluded_with(cluster)}
    return tuple(cluster for cluster in CLUSTERS if cluster not in excluded)


def check_clusters(train: Iterable[str], held_out: Iterable[str]) -> None:
    """Refuses to train on what is tested.

    Raises:
      UserError: a cluster of `train` is held out, or too close to one that is.
    """
    train = list(train)
    for cluster in train:
        excluded_with(cluster)
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
    """Registers a mixture of clusters to train on, for a test on others.

    Args:
      name: of the mixture.
      clusters: to train on; `register` must have been called.
      held_out: clusters that the model will be tested on.
      shots: "" (zero-shot) or a key of `SHOTS`.

    Raises:
      UserError: a cluster to train on is held out, or too close to one that is.
    """
    check_clusters(clusters, held_out)
    _mixture(name, clusters, shots)


def _name(name: str, suffix: str) -> str:
    return f"{name}_{suffix}" if suffix else name


def _mixture(name: str, clusters: Iterable[str], shots: str) -> None:
    names = [n for cluster in clusters for n in CLUSTERS[cluster] if "train" in DATASETS[n].splits]
    register_mixture(name, [(_name(f"flan2021_{n}", shots), rate) for n in names])


def _register_dataset(dataset: Dataset, root: str) -> None:
    def add(suffix: str, **form: Any) -> None:
        source = FlanSource(dataset, root, Form(**form))
        register_flan_task(_name(f"flan2021_{dataset.name}", suffix), source)

    add("")
    if "train" in dataset.splits:
        for suffix, shots in SHOTS.items():
            add(suffix, shots=shots)
    if dataset.choices:
        add("score_eval", ranked=True)
        add("score_eval_no_options", ranked=True, options="none")
        for k in _plain_templates(dataset.templates):
            add(f"type_{k}_score_eval", ranked=True, template=k)


@functools.cache
def _plain_templates(group: str) -> range:
    return range(sum(not template.inverted for template in prompts.groups()[group]))
