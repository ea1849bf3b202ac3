"""T0 and P3 (Sanh et al. 2021, arXiv:2110.08207): promptsource's templates over 60-odd datasets.

`register(root)` looks for a template folder: `<root>/promptsource/templates`, `<root>/templates`,
the root itself, or the installed package `promptsource`. Rows are read when asked for: local
files `<root>/<dataset>/[<subset>/]<split>.jsonl[.gz]` or `.parquet`, else Hugging Face through
the extra `hf`. A template becomes a task with P3's name, `<dataset>_[<subset>_]<template>`;
where it lists answers to choose from, `<task>_score_eval` is its twin for rank classification:
without a "train" split, its records have `choices`, a JSON list of the answers. Mixtures:

- `t0_train`, `t0+_train`, `t0++_train`: every template of the stages BASE; + GPT_EVAL; + SGLUE;
- `t0_train_one_og_prompt`, `t0_train_all_og_prompts`: BASE, but one template a dataset, or all
  that ask the dataset's original task;
- `t0_eval_score_eval`: the held-out tasks (NLI, coreference, story completion, word sense), those
  that ask the original task; `t0+_eval_score_eval` and `t0++_eval_score_eval` are what is left
  of them when those models have trained on some; `t0_train_score_eval` the trained tasks;
- `bias_fairness_eval_score_eval`.

A dataset of more than 500,000 examples counts as 500,000 / its templates for each template,
another with its full size for each template: the published rates, on which the original is
discontinuous (cnn_dailymail weighs 5 times gigaword).
"""

import functools
import importlib.util
import logging
import os
import re
from collections.abc import Iterable, Mapping

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match, exact_match_normalized, rouge_l
from ift_jax.sources.register import register_mixture, register_task
from tasks.t0 import promptsource
from tasks.t0.datasets import DATASETS, LEFT_OUT, STAGES, Dataset
from tasks.t0.promptsource import Template
from tasks.t0.rows import PromptedSource

MAX_EXAMPLES = 500_000
SCORE_EVAL = "_score_eval"
_MODELS = ("t0", "t0+", "t0++")
_ROUGE = {"ROUGE", "BLEU"}
_NORMALIZED = {"Squad", "Span Squad", "Trivia QA"}


def register(root: str) -> None:
    """Registers T0's tasks and mixtures, as far as their templates are on disk.

    Raises:
      UserError: no template folder, or it has none of T0's datasets.
    """
    folder = template_folder(root)
    files = promptsource.find_templates(folder)
    missing = [d for d in DATASETS if (d.name, d.subset) not in files]
    if len(missing) == len(DATASETS):
        raise UserError(f"{folder}: has templates of none of T0's datasets")
    if missing:
        names = sorted({f"{d.name}/{d.subset}".strip("/") for d in missing})
        logging.warning(
            "T0: no templates for %d of its datasets in %s: %s", len(names), folder, names[0]
        )
    mixtures = _Mixtures()
    for dataset in DATASETS:
        path = files.get((dataset.name, dataset.subset))
        if path:
            templates = promptsource.read_templates(path)
            register_dataset(root, dataset, templates)
            mixtures.add(dataset, templates)
    mixtures.register()


def template_folder(root: str) -> str:
    """Returns the folder of templates that belongs to a root.

    Raises:
      UserError: none is there, and promptsource is not installed.
    """
    if root:
        for parts in (("promptsource", "templates"), ("templates",), ("promptsource",), ()):
            folder = os.path.join(root, *parts)
            if _has_templates(folder):
                return folder
    package = importlib.util.find_spec("promptsource")
    for place in (package and package.submodule_search_locations) or ():
        if _has_templates(os.path.join(place, "templates")):
            return os.path.join(place, "templates")
    raise UserError(
        f"data.root {root!r}: no promptsource templates; expected <dataset>/[<subset>/]templates."
        "yaml in it or in its folder promptsource/templates (a checkout of github.com/"
        "bigscience-workshop/promptsource, or the installed package promptsource)"
    )


def _has_templates(folder: str) -> bool:
    known = {(d.name, d.subset) for d in DATASETS}
    return any(os.path.isfile(os.path.join(folder, *n, "templates.yaml")) for n in known)


def task_name(dataset: Dataset, template: Template) -> str:
    """Returns P3's name of a task."""
    subset = f"_{dataset.subset}_" if dataset.subset else "_"
    name = f"{dataset.name}{subset}{template.name}"
    return re.sub(r"[^\w.]+", "_", name) + dataset.suffix


def cap(train_size: int, n_templates: int) -> int:
    """Returns the rate of one template of a dataset."""
    return MAX_EXAMPLES // n_templates if train_size > MAX_EXAMPLES else train_size


def register_dataset(root: str, dataset: Dataset, templates: Iterable[Template]) -> list[str]:
    """Registers a task a template, and its twin for rank classification; returns all names."""
    names = []
    for template in templates:
        name = task_name(dataset, template)
        source = functools.partial(PromptedSource, root, dataset.name, dataset.subset, template)
        splits = dataset.usable_splits
        register_task(name, source(splits), metric_fns=_metrics(template))
        names.append(name)
        unseen = {k: v for k, v in splits.items() if k != "train"}
        if template.answer_choices and unseen:
            twin = source(unseen, ranked=True)
            register_task(name + SCORE_EVAL, twin, metric_fns=[exact_match])
            names.append(name + SCORE_EVAL)
    return names


def _metrics(template: Template) -> list:
    metrics = [exact_match]
    if _NORMALIZED & set(template.metrics):
        metrics.append(exact_match_normalized)
    return metrics + ([rouge_l] if _ROUGE & set(template.metrics) else [])


class _Mixtures:
    """Collects what belongs to which mixture."""

    def __init__(self) -> None:
        self._train: dict[str, list[tuple[str, int]]] = {stage: [] for stage in STAGES}
        self._one: list[tuple[str, int]] = []
        self._original: list[tuple[str, int]] = []
        self._scored: list[str] = []
        self._bias: list[str] = []
        self._heldout: list[tuple[str, str]] = []  # Task, the stage that trains on its dataset.

    def add(self, dataset: Dataset, templates: list[Template]) -> None:
        rate = cap(dataset.train_size, len(templates))
        has_twin = any(split != "train" for split in dataset.usable_splits)
        first = True
        for template in templates:
            name = task_name(dataset, template)
            if name in LEFT_OUT:
                continue
            twin = [name + SCORE_EVAL] if template.answer_choices and has_twin else []
            if dataset.train:
                self._train[dataset.train].append((name, rate))
            if dataset.train == "BASE" and template.original_task:
                self._one += [(name, rate)] if first else []
                self._original.append((name, rate))
                self._scored += twin
            if template.original_task:
                first = False
            if dataset.evaluation == "BASE" and template.original_task:
                self._heldout += [(name, dataset.train) for name in twin]
            if dataset.evaluation == "BIAS_FAIRNESS":
                self._bias += twin

    def register(self) -> None:
        mixtures: dict[str, list] = {
            "t0_train_one_og_prompt": self._one,
            "t0_train_all_og_prompts": self._original,
        }
        evaluation: dict[str, list[str]] = {
            "t0_train_score_eval": self._scored,
            "bias_fairness_eval_score_eval": self._bias,
        }
        for model, k in zip(_MODELS, range(1, len(STAGES) + 1), strict=True):
            trained = STAGES[:k]
            mixtures[f"{model}_train"] = [t for stage in trained for t in self._train[stage]]
            held_out = [name for name, stage in self._heldout if stage not in trained]
            evaluation[f"{model}_eval_score_eval"] = held_out
        # The rates of an evaluation have no effect: it is finite and complete.
        mixtures |= {name: [(t, 1.0) for t in tasks] for name, tasks in evaluation.items()}
        for name, tasks in mixtures.items():
            if tasks:
                register_mixture(name, tasks)


def held_out(mixture: str) -> Mapping[str, str]:
    """Returns the datasets that a training mixture holds out -> why: no stage, or a later one.

    Raises:
      UserError: no such training mixture.
    """
    models = dict(zip((f"{m}_train" for m in _MODELS), range(1, 4), strict=True))
    if mixture not in models:
        raise UserError(f"{mixture!r}: expected one of {', '.join(models)}")
    trained = STAGES[: models[mixture]]
    return {
        f"{d.name}/{d.subset}".strip("/"): d.train or "evaluation only"
        for d in DATASETS
        if d.evaluation == "BASE" and d.train not in trained
    }
