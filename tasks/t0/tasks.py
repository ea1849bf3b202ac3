"""T0 and P3 (Sanh et al. 2021, arXiv:2110.08207): promptsource's templates over 60-odd data sets.

`register(root)` looks for a template folder: `<root>/promptsource/templates`, `<root>/templates`,
the root itself, or the installed package `promptsource`. Rows are read when they are needed, from
local files `<root>/<dataset>/[<subset>/]<split>.jsonl[.gz]` or `.parquet`, or else from Hugging
Face through the extra `hf`.

Each template becomes a task with P3's name, `<dataset>_[<subset>_]<template>`. If the template
lists answers to choose from, there also is a twin for rank classification, `<task>_score_eval`. It
has no "train" split, and its records have `choices`, a JSON list of the answers. The mixtures:

- `t0_train`, `t0+_train`, `t0++_train`: all templates of the stage BASE, of BASE and GPT_EVAL, and
  of BASE, GPT_EVAL and SGLUE;
- `t0_train_one_og_prompt`, `t0_train_all_og_prompts`: BASE, but only one template of each data
  set, or all templates, that ask what the data set was made for (its original task);
- `t0_eval_score_eval`: the held-out tasks (NLI, coreference, story completion, word sense), as far
  as they ask the original task; `t0+_eval_score_eval` and `t0++_eval_score_eval`: those of them on
  which these models were not trained; `t0_train_score_eval`: the tasks of BASE that ask the
  original task, without those that T0 does not score (`NOT_SCORED`, `TASKS_NOT_SCORED`);
- `bias_fairness_eval_score_eval`.

The rate of a template is the size of its data set, or 500,000 / number of templates if the data set
has more than 500,000 examples. These are the published rates, in which the original is
discontinuous (cnn_dailymail weighs 5 times as much as gigaword).
"""

import dataclasses
import importlib.util
import logging
import os
import re
from collections.abc import Iterable, Mapping

from ift_jax.errors import UserError
from ift_jax.metrics import Metric, exact_match, exact_match_normalized, rouge_l
from ift_jax.sources.register import register_mixture, register_task
from tasks.t0 import promptsource
from tasks.t0.datasets import (
    DATASETS,
    LEFT_OUT,
    NOT_SCORED,
    STAGES,
    TASKS_NOT_SCORED,
    Dataset,
)
from tasks.t0.promptsource import Template
from tasks.t0.rows import PromptedSource

MAX_EXAMPLES = 500_000
SCORE_EVAL = "_score_eval"
# Model -> the stages that it was trained on.
_TRAINED_STAGES = {"t0": STAGES[:1], "t0+": STAGES[:2], "t0++": STAGES}
# Names of metrics in promptsource for which ours are rouge_l and exact_match_normalized.
_ROUGE = {"ROUGE", "BLEU"}
_NORMALIZED = {"Squad", "Span Squad", "Trivia QA"}


def register(root: str) -> None:
    """Register the tasks and mixtures of T0 whose templates are on disk.

    Raises:
        UserError: There is no template folder, or it has templates of none of T0's data sets.
    """
    folder = template_folder(root)
    files = promptsource.find_templates(folder)
    missing = [d for d in DATASETS if (d.name, d.subset) not in files]
    if len(missing) == len(DATASETS):
        raise UserError(f"{folder}: has templates of none of T0's datasets")
    if missing:
        names = sorted({dataset.full_name for dataset in missing})
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
    """Return the folder of templates that belongs to a root.

    Raises:
        UserError: The root has none, and the package promptsource is not installed.
    """
    if root:
        for parts in (("promptsource", "templates"), ("templates",), ("promptsource",), ()):
            folder = os.path.join(root, *parts)
            if _has_templates(folder):
                return folder
    package = importlib.util.find_spec("promptsource")
    places = package.submodule_search_locations if package else None
    for place in places or ():
        folder = os.path.join(place, "templates")
        if _has_templates(folder):
            return folder
    raise UserError(
        f"data.root {root!r}: no promptsource templates; expected <dataset>/[<subset>/]templates."
        "yaml in it or in its folder promptsource/templates (a checkout of github.com/"
        "bigscience-workshop/promptsource, or the installed package promptsource)"
    )


def _has_templates(folder: str) -> bool:
    return any(
        os.path.isfile(os.path.join(folder, dataset.name, dataset.subset, "templates.yaml"))
        for dataset in DATASETS
    )


def task_name(dataset: Dataset, template: Template) -> str:
    """Return P3's name of a task."""
    subset = f"_{dataset.subset}_" if dataset.subset else "_"
    name = f"{dataset.name}{subset}{template.name}"
    return re.sub(r"[^\w.]+", "_", name) + dataset.suffix


def cap(train_size: int, n_templates: int) -> int:
    """Return the rate of one template of a data set."""
    return MAX_EXAMPLES // n_templates if train_size > MAX_EXAMPLES else train_size


def register_dataset(root: str, dataset: Dataset, templates: Iterable[Template]) -> list[str]:
    """Register a task for each template, and its twin for rank classification.

    Returns:
        The names of all tasks.
    """
    splits = dataset.usable_splits
    evaluation_splits = {k: v for k, v in splits.items() if k != "train"}
    names = []
    for template in templates:
        name = task_name(dataset, template)
        source = PromptedSource(root, dataset.name, dataset.subset, template, splits)
        register_task(name, source, metric_fns=_metrics(template))
        names.append(name)
        if template.answer_choices and evaluation_splits:
            twin = PromptedSource(
                root, dataset.name, dataset.subset, template, evaluation_splits, ranked=True
            )
            register_task(name + SCORE_EVAL, twin, metric_fns=[exact_match])
            names.append(name + SCORE_EVAL)
    return names


def _metrics(template: Template) -> list[Metric]:
    metrics: list[Metric] = [exact_match]
    if _NORMALIZED & set(template.metrics):
        metrics.append(exact_match_normalized)
    if _ROUGE & set(template.metrics):
        metrics.append(rouge_l)
    return metrics


@dataclasses.dataclass
class _Mixtures:
    """Collects the tasks of every mixture.

    Attributes:
        train: Stage -> tasks and rates.
        one_original: One task of each BASE data set that asks its original task, with the rate.
        all_original: All tasks of BASE that ask the original task, with the rates.
        scored: The twins of those of `all_original` that T0 scores.
        bias: The twins of the evaluation of biases.
        held_out: The twins of held-out tasks, and the stage that trains on their data set.
    """

    train: dict[str, list[tuple[str, float]]] = dataclasses.field(
        default_factory=lambda: {stage: [] for stage in STAGES}
    )
    one_original: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    all_original: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    scored: list[str] = dataclasses.field(default_factory=list)
    bias: list[str] = dataclasses.field(default_factory=list)
    held_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, dataset: Dataset, templates: list[Template]) -> None:
        """Put the tasks of a data set into the mixtures that they belong to."""
        rate = cap(dataset.train_size, len(templates))
        has_twins = any(split != "train" for split in dataset.usable_splits)
        has_original = False
        for template in templates:
            name = task_name(dataset, template)
            if name in LEFT_OUT:
                continue
            if dataset.train:
                self.train[dataset.train].append((name, rate))
            if dataset.train == "BASE" and template.original_task:
                if not has_original:
                    self.one_original.append((name, rate))
                self.all_original.append((name, rate))
            has_original = has_original or template.original_task
            if template.answer_choices and has_twins:
                self._add_twin(name, dataset, template)

    def _add_twin(self, name: str, dataset: Dataset, template: Template) -> None:
        twin = name + SCORE_EVAL
        is_scored = dataset.full_name not in NOT_SCORED and name not in TASKS_NOT_SCORED
        if template.original_task and dataset.train == "BASE" and is_scored:
            self.scored.append(twin)
        if template.original_task and dataset.evaluation == "BASE":
            self.held_out.append((twin, dataset.train))
        if dataset.evaluation == "BIAS_FAIRNESS":
            self.bias.append(twin)

    def register(self) -> None:
        """Register every mixture that has tasks."""
        training: dict[str, list[tuple[str, float]]] = {
            "t0_train_one_og_prompt": self.one_original,
            "t0_train_all_og_prompts": self.all_original,
        }
        evaluation: dict[str, list[str]] = {
            "t0_train_score_eval": self.scored,
            "bias_fairness_eval_score_eval": self.bias,
        }
        for model, stages in _TRAINED_STAGES.items():
            training[f"{model}_train"] = [task for stage in stages for task in self.train[stage]]
            evaluation[f"{model}_eval_score_eval"] = [
                twin for twin, stage in self.held_out if stage not in stages
            ]
        for name, tasks in training.items():
            if tasks:
                register_mixture(name, tasks)
        for name, twins in evaluation.items():
            if twins:
                # Rates have no effect on an evaluation, which is finite and complete.
                register_mixture(name, [(twin, 1.0) for twin in twins])


def held_out(mixture: str) -> Mapping[str, str]:
    """Return the data sets that a training mixture holds out.

    Returns:
        Data set -> the later stage that trains on it, or "evaluation only".

    Raises:
        UserError: There is no such training mixture.
    """
    stages_of_mixture = {f"{model}_train": stages for model, stages in _TRAINED_STAGES.items()}
    if mixture not in stages_of_mixture:
        raise UserError(f"{mixture!r}: expected one of {', '.join(stages_of_mixture)}")
    stages = stages_of_mixture[mixture]
    return {
        dataset.full_name: dataset.train or "evaluation only"
        for dataset in DATASETS
        if dataset.evaluation == "BASE" and dataset.train not in stages
    }
