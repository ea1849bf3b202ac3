"""The Flan Collection (arXiv:2301.13688): the mixture that Flan-T5 was trained on.

`register(root)` registers the mixture `flan_collection` and its five submixtures:

| mixture                   | share | inside                                       | cap     |
| `flan_collection_flan2021`| .40   | zs_opt, fs_opt, zs_noopt, fs_noopt: 25% each | 30,000  |
| `flan_collection_t0`      | .32   | the same four                                | 20,000  |
| `flan_collection_niv2`    | .20   | zs_opt, fs_opt: 50% each                     | 5,000   |
| `flan_collection_cot`     | .05   | the same two; inverted examples 0.3 to 1     | 100,000 |
| `flan_collection_dialog`  | .03   | as cot                                       | 200,000 |

Each data set in each form is a task (`flan_collection_SUBMIXTURE_DATASET_zs_opt`, ...). "zs" is
zero-shot, "fs" few-shot, "opt" shows options in a drawn style, "noopt" hides them. The rate of a
task is min(cap, examples). `flan_collection_found` has the same shares, among the tasks whose data
is on this machine. The shares are those of `run_example.py` of github.com/google-research/FLAN.
(The T5 mixture of the paper is reported elsewhere as 46 / 27.9 / 24.2 / 1.8% of Muffin, T0-SF, NIv2
and CoT.)

Data under the root:

- FLAN 2021 and WikiDialog: as for `tasks.flan.flan2021`;
- chains of thought: `cot/NAME_train.tsv`;
- Super-NaturalInstructions: its data release, `niv2/tasks/*.json`;
- T0: `t0/*.jsonl`, a file a task, of rendered prompts {"inputs", "targets"[, "options"]};
- QReCC: `qrecc/train.jsonl`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import seqio

from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture
from tasks.flan import collection_rows as rows
from tasks.flan.dataset import Dataset
from tasks.flan.datasets import DATASETS
from tasks.flan.rows import Part
from tasks.flan.source import FlanSource, Form, register_flan_task

# Submixture -> its share of the Collection.
SHARES: Mapping[str, float] = {
    "flan2021": 0.40,
    "t0": 0.32,
    "niv2": 0.20,
    "cot": 0.05,
    "dialog": 0.03,
}
# Submixture -> the largest rate of a task, in examples.
CAPS: Mapping[str, int] = {
    "flan2021": 30_000,
    "t0": 20_000,
    "niv2": 5_000,
    "cot": 100_000,
    "dialog": 200_000,
}
INVERTED_RATE = 0.3  # The rate of inverted examples, where that of the others is 1.
_MAX_CHARACTERS = 4 * 1920

COT = ("gsm8k", "strategyqa", "creak", "qasc", "esnli", "ecqa", "sensemaking", "aqua", "qed")
_COT_VALIDATION = 50
_QRECC_VALIDATION = 200
# The beginnings of the names of those T0 tasks whose data sets are in FLAN 2021 already.
T0_IN_FLAN = (
    "ag_news", "ai2_arc", "anli", "cnn_dailymail", "common_gen", "cosmos_qa", "dpr", "drop",
    "gigaword", "glue", "hellaswag", "imdb", "multi_news", "newsroom", "openbookqa", "paws",
    "piqa", "samsum", "snli", "squad", "story_cloze", "super_glue", "trec", "trivia_qa",
    "winogrande", "xsum", "yelp",
)  # fmt: skip
# The tasks of Natural Instructions that are made of MMLU, on which Flan models are tested.
_MMLU = frozenset((*range(664, 668), *range(685, 738)))

_FORMS: Mapping[str, Form] = {
    "zs_opt": Form("styled", max_characters=_MAX_CHARACTERS),
    "fs_opt": Form("styled", "drawn", max_characters=_MAX_CHARACTERS),
    "zs_noopt": Form("none", max_characters=_MAX_CHARACTERS),
    # Without options, the Collection has no exemplars of mixed templates.
    "fs_noopt": Form("none", "alike", max_characters=_MAX_CHARACTERS),
}
_ALL_FORMS = tuple(_FORMS)
_FORMS_WITH_OPTIONS = ("zs_opt", "fs_opt")
_WITH_INVERTED = ("cot", "dialog")  # The submixtures that have inverted examples.


class _RatedTask(NamedTuple):
    """The name of a registered task, and the function of the task that gives its rate."""

    name: str
    rate: Callable[[seqio.Task], float]


def register(root: str) -> None:
    """Register all tasks and mixtures. Only the names of files are looked at."""
    complete = []
    found = []
    for name, datasets in submixtures(root).items():
        complete.append((_register_submixture(name, datasets, root, ""), SHARES[name]))
        available = [d for d in datasets if d.open_rows(root, d.tfds).available]
        if available:
            found.append((_register_submixture(name, available, root, "_found"), SHARES[name]))
    register_mixture("flan_collection", complete)
    if found:
        register_mixture("flan_collection_found", found)


def submixtures(root: str) -> Mapping[str, Sequence[Dataset]]:
    """Return the data sets of each submixture.

    A missing folder of T0 or of Natural Instructions is represented by a data set that raises an
    error when it is read.
    """
    return {
        "flan2021": [d for d in DATASETS.values() if "train" in d.splits],
        "t0": _t0(root),
        "niv2": _natural_instructions(root),
        "cot": [_chain_of_thought(name) for name in COT],
        "dialog": [_wiki_dialog(), _qrecc()],
    }


def _register_submixture(name: str, datasets: Sequence[Dataset], root: str, suffix: str) -> str:
    """Register a submixture of some data sets, and return its name."""
    full_name = f"flan_collection_{name}{suffix}"
    forms = _ALL_FORMS if name in ("flan2021", "t0") else _FORMS_WITH_OPTIONS
    for form in forms:
        form_name = f"{full_name}_{form}"
        forward = [_register_task(name, dataset, form, root) for dataset in datasets]
        if name not in _WITH_INVERTED:
            register_mixture(form_name, forward)
            continue
        inverted = [_register_task(name, _inverted(dataset), form, root) for dataset in datasets]
        register_mixture(f"{form_name}_forward", forward)
        register_mixture(f"{form_name}_inverted", inverted)
        rates = [(f"{form_name}_forward", 1.0), (f"{form_name}_inverted", INVERTED_RATE)]
        register_mixture(form_name, rates)
    register_mixture(full_name, [(f"{full_name}_{form}", 1 / len(forms)) for form in forms])
    return full_name


def _register_task(submixture: str, dataset: Dataset, form: str, root: str) -> _RatedTask:
    """Register a data set in a form.

    For a data set without options, "zs_opt" and "zs_noopt" would be the same text, so one task is
    in both mixtures.
    """
    if form == "zs_noopt" and not dataset.choices:
        form = "zs_opt"
    name = f"flan_collection_{submixture}_{dataset.name}_{form}"
    register_flan_task(name, FlanSource(dataset, root, _FORMS[form]))
    return _RatedTask(name, _capped_rate(CAPS[submixture]))


@functools.cache
def _capped_rate(cap: int) -> Callable[[seqio.Task], float]:
    return functools.partial(seqio.mixing_rate_num_examples, maximum=cap)


def _inverted(dataset: Dataset) -> Dataset:
    """Return the data set with inputs and outputs exchanged."""
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}_inverted",
        cluster=f"{dataset.group}_inverted",
        group=f"{dataset.group}_inverted",
        metrics=(rouge_l,),
    )


def _last_rows_held_out(n: int) -> dict[str, Part]:
    """Return splits for a release of training data alone: its last rows become validation."""
    return {"train": Part("train", 0, -n), "validation": Part("train", -n)}


def _chain_of_thought(name: str) -> Dataset:
    return Dataset(
        name,
        cluster="cot",
        tfds=f"cot/{name}_train.tsv",
        read=rows.cot,
        splits=_last_rows_held_out(_COT_VALIDATION),
        group="cot",
        train_cap=CAPS["cot"],
        open_rows=rows.CotRows,
        metrics=(rouge_l,),
    )


def _wiki_dialog() -> Dataset:
    return Dataset(
        "wiki_dialog",
        cluster="dialog",
        tfds="wiki_dialog/OQ",
        read=rows.wiki_dialog,
        splits={"train": Part("train"), "validation": Part("validation")},
        group="dialog",
        train_cap=CAPS["dialog"],
        metrics=(rouge_l,),
    )


def _qrecc() -> Dataset:
    return Dataset(
        "qrecc",
        cluster="dialog",
        tfds="qrecc",
        read=rows.qrecc,
        splits=_last_rows_held_out(_QRECC_VALIDATION),
        group="dialog",
        train_cap=CAPS["dialog"],
        metrics=(rouge_l,),
    )


def _natural_instructions(root: str) -> list[Dataset]:
    found = rows.find_files(root, "niv2/tasks", "task*.json")
    paths = {name: path for name, path in found.items() if not _is_mmlu(name)}
    if not found:
        paths = {"missing": "niv2/tasks"}
    return [
        Dataset(
            name,
            cluster="niv2",
            tfds=path,
            read=rows.as_it_is,
            splits={"train": Part("train")},
            group="niv2",
            open_rows=rows.NaturalInstructionsRows,
            train_cap=CAPS["niv2"],
            references=True,
            metrics=(exact_match, rouge_l),
        )
        for name, path in paths.items()
    ]


def _is_mmlu(name: str) -> bool:
    match = re.match(r"task(\d+)_", name)
    return match is not None and int(match[1]) in _MMLU


def _t0(root: str) -> list[Dataset]:
    found = rows.find_files(root, "t0", "*.jsonl")
    paths = {name: path for name, path in found.items() if not in_flan(name)}
    if not paths:
        paths = {"missing": "t0/*.jsonl"}
    return [
        Dataset(
            name,
            cluster="t0",
            tfds=path,
            read=rows.prompt,
            splits={"train": Part("train")},
            group="t0",
            open_rows=rows.PromptRows,
            train_cap=CAPS["t0"],
            choices=True,
        )
        for name, path in paths.items()
    ]


def in_flan(name: str) -> bool:
    """Return whether a T0 task of this name is made of a data set that is in FLAN 2021."""
    return any(name == start or name.startswith(f"{start}_") for start in T0_IN_FLAN)
