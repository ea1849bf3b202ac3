"""The Flan Collection (arXiv:2301.13688): the mixture that Flan-T5 was trained on.

`register(root)` registers the mixtures `flan_collection` and its five submixtures

| mixture                   | share | inside                                        | cap     |
| `flan_collection_flan2021`| .40   | zs_opt, fs_opt, zs_noopt, fs_noopt: 25% each  | 30,000  |
| `flan_collection_t0`      | .32   | the same four                                 | 20,000  |
| `flan_collection_niv2`    | .20   | zs, fs: 50% each                              | 5,000   |
| `flan_collection_cot`     | .05   | the same two; in each, inverted ones 0.3 to 1 | 100,000 |
| `flan_collection_dialog`  | .03   | as cot                                        | 200,000 |

with a task a leaf (`flan_collection_SUBMIXTURE_DATASET_zs_opt`, ...). "zs" is zero-shot, "fs"
few-shot, "opt" shows options in a seeded style, "noopt" hides them. A leaf's rate is
min(cap, examples).  `flan_collection_found` has the same shares among the leaves whose data is
on this machine. The shares are those of `run_example.py` of github.com/google-research/FLAN; the
paper's T5 mixture is given elsewhere as 46 / 27.9 / 24.2 / 1.8% (Muffin, T0-SF, NIv2, CoT).

Data under the root: FLAN 2021 and WikiDialog as for `tasks.flan.flan2021`; `cot/NAME_train.tsv`;
`niv2/tasks/*.json`, the data release of Super-NaturalInstructions; `t0/*.jsonl`, rendered prompts
{"inputs", "targets"[, "options"]}, a file a T0 task; `qrecc/train.jsonl`.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from ift_jax.metrics import exact_match, rouge_l
from ift_jax.sources.register import register_mixture
from tasks.flan import collection_rows as rows
from tasks.flan.dataset import Dataset, Part
from tasks.flan.datasets import DATASETS
from tasks.flan.source import FlanSource, Form, Rows, register_flan_task

SHARES: Mapping[str, float] = {
    "flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog": 0.03,
}  # fmt: skip
CAPS: Mapping[str, int] = {
    "flan2021": 30_000, "t0": 20_000, "niv2": 5_000, "cot": 100_000, "dialog": 200_000,
}  # fmt: skip
INVERTED_SHARE = 0.3  # Of inverted examples, for one that is not.
_FEW_SHOT_CHARACTERS = 4 * 1920

COT = ("gsm8k", "strategyqa", "creak", "qasc", "esnli", "ecqa", "sensemaking", "aqua", "qed")
_COT_VALIDATION = 50
# Beginnings of the names of T0's tasks whose datasets FLAN 2021 has: they are left out of t0.
T0_IN_FLAN = (
    "ag_news", "ai2_arc", "anli", "cnn_dailymail", "common_gen", "cosmos_qa", "dpr", "drop",
    "gigaword", "glue", "hellaswag", "imdb", "multi_news", "newsroom", "openbookqa", "paws",
    "piqa", "samsum", "snli", "squad", "story_cloze", "super_glue", "trec", "trivia_qa",
    "winogrande", "xsum", "yelp",
)  # fmt: skip
# Natural Instructions made of MMLU, which Flan models are tested on.
_MMLU = frozenset((*range(664, 668), *range(685, 738)))

_OPT = Form(options="styled", max_characters=_FEW_SHOT_CHARACTERS)
_FORMS: Mapping[str, Form] = {
    "zs_opt": _OPT,
    "fs_opt": Form("styled", "drawn", max_characters=_FEW_SHOT_CHARACTERS),
    "zs_noopt": Form("none", max_characters=_FEW_SHOT_CHARACTERS),
    "fs_noopt": Form("none", "drawn", max_characters=_FEW_SHOT_CHARACTERS),
}
_FOUR = tuple(_FORMS)
_TWO = ("zs_opt", "fs_opt")
Leaf = tuple[str, Callable[[seqio.Task], float]]


def register(root: str) -> None:
    """Registers all tasks and mixtures; looks at file names, and reads no data."""
    sets = submixtures(root)
    complete, found = [], []
    for name, datasets in sets.items():
        complete.append((_submixture(name, datasets, root, ""), SHARES[name]))
        available = [d for d in datasets if (d.open or Rows)(root, d.tfds).available]
        if available:
            found.append((_submixture(name, available, root, "_found"), SHARES[name]))
    register_mixture("flan_collection", complete)
    if found:
        register_mixture("flan_collection_found", found)


def submixtures(root: str) -> Mapping[str, Sequence[Dataset]]:
    """The datasets of each submixture; what stands for a missing folder says so when used."""
    return {
        "flan2021": [d for d in DATASETS.values() if "train" in d.splits],
        "t0": _t0(root),
        "niv2": _niv2(root),
        "cot": [_cot(name) for name in COT],
        "dialog": _dialogs(),
    }


def _submixture(name: str, datasets: Sequence[Dataset], root: str, suffix: str) -> str:
    """Registers a submixture of some datasets and returns its name."""
    full = f"flan_collection_{name}{suffix}"
    forms = _FOUR if name in ("flan2021", "t0") else _TWO
    for form in forms:
        inside = f"{full}_{form}"
        forward = [_leaf(name, d, form, root) for d in datasets]
        if name in ("cot", "dialog"):
            inverted = [_leaf(name, _turned(d), form, root) for d in datasets]
            register_mixture(f"{inside}_forward", forward)
            register_mixture(f"{inside}_inverted", inverted)
            register_mixture(
                inside, [(f"{inside}_forward", 1.0), (f"{inside}_inverted", INVERTED_SHARE)]
            )
        else:
            register_mixture(inside, forward)
    register_mixture(full, [(f"{full}_{form}", 1 / len(forms)) for form in forms])
    return full


def _leaf(submixture: str, dataset: Dataset, form: str, root: str) -> Leaf:
    """Registers a dataset in a form; returns the task's name and rate.

    Without options "opt" and "noopt" are the same text, and one task is in both.
    """
    if form.endswith("noopt") and not dataset.choices:
        form = form.replace("noopt", "opt")
    name = f"flan_collection_{submixture}_{dataset.name}_{form}"
    register_flan_task(name, FlanSource(dataset, root, _FORMS[form]))
    return name, _rate(CAPS[submixture])


@functools.cache
def _rate(cap: int) -> Callable[[seqio.Task], float]:
    return functools.partial(seqio.mixing_rate_num_examples, maximum=cap)


def _turned(dataset: Dataset) -> Dataset:
    """The dataset with inputs and outputs exchanged."""
    return _dataset(
        f"{dataset.name}_inverted",
        dataset.tfds,
        dataset.read,
        dataset.splits,
        group=f"{dataset.group}_inverted",
        train_cap=dataset.train_cap,
        open=dataset.open,
        metrics=(rouge_l,),
    )


def _dataset(
    name: str, place: str, reader: Any, splits: Mapping[str, Part], **more: Any
) -> Dataset:
    return Dataset(name, more["group"], place, reader, splits, **more)


def _held(n: int) -> dict[str, Part]:
    return {"train": Part("train", 0, -n), "validation": Part("train", -n)}


def _cot(name: str) -> Dataset:
    # The release has training data only; its last rows become validation.
    return _dataset(
        name,
        f"cot/{name}_train.tsv",
        rows.cot,
        _held(_COT_VALIDATION),
        group="cot",
        train_cap=CAPS["cot"],
        open=rows.CotRows,
        metrics=(rouge_l,),
    )


def _dialogs() -> list[Dataset]:
    more: dict[str, Any] = {"group": "dialog", "train_cap": CAPS["dialog"], "metrics": (rouge_l,)}
    splits = {"train": Part("train"), "validation": Part("validation")}
    return [
        _dataset("wiki_dialog", "wiki_dialog/OQ", rows.wiki_dialog, splits, **more),
        _dataset("qrecc", "qrecc", rows.qrecc, _held(200), **more),
    ]


def _niv2(root: str) -> list[Dataset]:
    paths = rows.files(root, "niv2/tasks", "task*.json") or {"missing": "niv2/tasks"}
    more: dict[str, Any] = {
        "group": "niv2",
        "open": rows.NaturalInstructionsRows,
        "train_cap": CAPS["niv2"],
        "references": True,
        "metrics": (exact_match, rouge_l),
    }
    return [
        _dataset(name, path, rows.as_it_is, {"train": Part("train")}, **more)
        for name, path in paths.items()
        if not _is_mmlu(name)
    ]


def _is_mmlu(name: str) -> bool:
    number = re.match(r"task(\d+)_", name)
    return bool(number) and int(number[1]) in _MMLU


def _t0(root: str) -> list[Dataset]:
    paths = {
        name: path for name, path in rows.files(root, "t0", "*.jsonl").items() if not in_flan(name)
    } or {"missing": "t0/*.jsonl"}
    more: dict[str, Any] = {
        "group": "t0",
        "open": rows.PromptRows,
        "train_cap": CAPS["t0"],
        "choices": True,
    }
    return [
        _dataset(name, path, rows.prompt, {"train": Part("train")}, **more)
        for name, path in paths.items()
    ]


def in_flan(name: str) -> bool:
    """Whether a T0 task, by its name, is made of a dataset that FLAN 2021 has."""
    return any(name == start or name.startswith(f"{start}_") for start in T0_IN_FLAN)
