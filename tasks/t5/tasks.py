"""T5's supervised tasks and mixtures (Raffel et al. 2020, arXiv:1910.10683).

`register(root)` registers a task `t5_<name>` for each entry of `TASKS`, and the mixtures of
`mixtures()`, without reading any data. Rows are read from `<root>/<dataset>/<split>.jsonl[.gz]` or
`.parquet`, such as `<root>/glue/mnli/train.jsonl`, or else from what TFDS has prepared. If the root
has `sentencepiece.model` (T5's vocabulary file), the objectives on C4 and the mixture that needs
them are registered too; see `tasks.t5.objectives`.

The differences from the released code:

- an example without a label is never right;
- WSC is one task, whose split "train" has only rows whose noun is the referent;
- tasks that are only evaluated are in `glue_eval` and `super_glue_eval`, and not in the training
  mixtures at rate 0;
- padded SQuAD and TriviaQA texts have no spaces at their ends.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.tfds import TfdsRowsSource
from tasks.t5 import formats, metrics, objectives, winograd_formats

Metric = Callable[..., Any]
Rates = list[tuple[str, float]]  # Pairs of a task's name and its rate.

ALL_SPLITS = {"train": "train", "validation": "validation", "test": "test"}
_TRAIN_AND_VALIDATION = {"train": "train", "validation": "validation"}
_WITHOUT_TRAIN = {"validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of T5.

    Attributes:
        dataset: The name of the data set in TFDS.
        render: Turns a row into a record.
        metric_fns: The metrics.
        examples: The published number of training examples, from which mixing rates are computed;
            0 for a task that is in no mixture that needs it.
        splits: Our name of a split -> the data set's name.
        expand: Turns a row into several rows or none; None to keep it.
        references: Whether the records have references.
    """

    dataset: str
    render: Callable[..., dict[str, str]]
    metric_fns: tuple[Metric, ...]
    examples: int = 0
    splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: ALL_SPLITS)
    expand: Callable[[dict[str, Any], str], Iterable[dict[str, Any]]] | None = None
    references: bool = False


def _classify(
    dataset: str,
    keys: str,
    labels: Sequence[str],
    metric_fns: Sequence[Metric],
    examples: int = 0,
    *,
    name: str = "",
    rename: tuple[tuple[str, str], ...] = (),
    splits: Mapping[str, str] = ALL_SPLITS,
) -> Task:
    """Return a classification task; see `formats.classification`.

    Args:
        dataset: The name of the data set in TFDS.
        keys: The keys of the prompt, separated by spaces.
        labels: The names of the labels, in the order of TFDS's numbers.
        metric_fns: The metrics.
        examples: The number of training examples.
        name: What the prompt begins with; by default the last part of the data set's name.
        rename: Pairs of a key and the row's name of it.
        splits: Our name of a split -> the data set's name.
    """
    render = functools.partial(
        formats.classification,
        name=name or dataset.rpartition("/")[2],
        keys=tuple(keys.split()),
        labels=tuple(labels),
        rename=rename,
    )
    return Task(dataset, render, tuple(metric_fns), examples, splits)


def _translate(dataset: str, target: str, examples: int = 0) -> Task:
    """Return a task of translating English to a language code."""
    render = functools.partial(formats.translate, source="en", target=target)
    return Task(dataset, render, (metrics.bleu,), examples)


_ACCURACY = (metrics.accuracy,)
_BOOLEAN = ("False", "True")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = ("entailment", "neutral", "contradiction")
_MATCHED = {"validation": "validation_matched", "test": "test_matched"}
_MISMATCHED = {"validation": "validation_mismatched", "test": "test_mismatched"}

# The keys of a prompt are sorted, except for MultiRC.
GLUE = {
    "glue_cola": _classify(
        "glue/cola", "sentence", ("unacceptable", "acceptable"), (metrics.matthews,), 8_551
    ),
    "glue_sst2": _classify("glue/sst2", "sentence", ("negative", "positive"), _ACCURACY, 67_349),
    "glue_mrpc": _classify(
        "glue/mrpc", "sentence1 sentence2", ("not_equivalent", "equivalent"),
        (metrics.f1, metrics.accuracy), 3_668,
    ),
    "glue_qqp": _classify(
        "glue/qqp", "question1 question2", ("not_duplicate", "duplicate"),
        (metrics.f1, metrics.accuracy), 363_849,
    ),
    "glue_stsb": Task("glue/stsb", formats.stsb, (metrics.correlations,), 5_749),
    "glue_mnli": _classify(
        "glue/mnli", "hypothesis premise", _MNLI, _ACCURACY, 392_702,
        splits={"train": "train"} | _MATCHED,
    ),
    "glue_mnli_mismatched": _classify(
        "glue/mnli", "hypothesis premise", _MNLI, _ACCURACY, splits=_MISMATCHED
    ),
    "glue_qnli": _classify("glue/qnli", "question sentence", _ENTAILMENT, _ACCURACY, 104_743),
    "glue_rte": _classify("glue/rte", "sentence1 sentence2", _ENTAILMENT, _ACCURACY, 2_490),
    # T5 trains on WSC and DPR instead, because WNLI's development set contradicts its training set.
    "glue_wnli": Task(
        "glue/wnli", winograd_formats.wnli, (metrics.wsc_accuracy,),
        splits=_WITHOUT_TRAIN, references=True,
    ),
    "glue_ax": _classify(
        "glue/ax", "hypothesis premise", _MNLI, (), name="mnli", splits={"test": "test"}
    ),
}  # fmt: skip

SUPER_GLUE = {
    "super_glue_boolq": _classify(
        "super_glue/boolq", "passage question", _BOOLEAN, _ACCURACY, 9_427
    ),
    "super_glue_cb": _classify(
        "super_glue/cb", "hypothesis premise", ("entailment", "contradiction", "neutral"),
        (metrics.mean_class_f1, metrics.accuracy), 250,
    ),
    "super_glue_copa": _classify(
        "super_glue/copa", "choice1 choice2 premise question", ("choice1", "choice2"),
        _ACCURACY, 400,
    ),
    "super_glue_multirc": Task(
        "super_glue/multirc", formats.multirc, (metrics.multirc,), 27_243, references=True
    ),
    "super_glue_record": Task(
        "super_glue/record", formats.record, (metrics.squad,), 138_854,
        expand=formats.record_rows, references=True,
    ),
    "super_glue_rte": _classify(
        "super_glue/rte", "hypothesis premise", _ENTAILMENT, _ACCURACY, 2_490
    ),
    "super_glue_wic": _classify(
        "super_glue/wic", "sentence1 sentence2 word", _BOOLEAN, _ACCURACY, 5_428
    ),
    "super_glue_wsc": Task(
        "super_glue/wsc.fixed", winograd_formats.wsc, (metrics.wsc_accuracy,), 259,
        expand=winograd_formats.correct_referents, references=True,
    ),
    "dpr": Task(
        "definite_pronoun_resolution", winograd_formats.definite_pronouns, _ACCURACY, 1_322,
        splits={"train": "train", "test": "test"},
    ),
    "super_glue_axb": _classify(
        "super_glue/axb", "hypothesis premise", _ENTAILMENT, (), name="rte",
        rename=(("premise", "sentence1"), ("hypothesis", "sentence2")), splits={"test": "test"},
    ),
    "super_glue_axg": _classify(
        "super_glue/axg", "hypothesis premise", _ENTAILMENT, (), name="rte",
        splits={"test": "test"},
    ),
}  # fmt: skip

# The numbers of examples are those of TFDS; we did not count them. Both large translation sets are
# above every cap K, so their exact numbers do not matter.
OTHERS = {
    "cnn_dailymail": Task("cnn_dailymail", formats.summarize, (metrics.rouge,), 287_113),
    "squad": Task(
        "squad/v1.1", formats.squad, (metrics.squad,), 87_599,
        splits=_TRAIN_AND_VALIDATION, references=True,
    ),
    "wmt_ende": _translate("wmt_t2t_translate/de-en", "de", 4_592_289),
    "wmt15_enfr": _translate("wmt15_translate/fr-en", "fr", 40_853_137),
    "wmt16_enro": _translate("wmt16_translate/ro-en", "ro", 610_320),
}  # fmt: skip

EXTRA = {
    "trivia_qa": Task(
        "trivia_qa/rc", formats.trivia_qa, (metrics.squad,),
        splits=_TRAIN_AND_VALIDATION,
        expand=formats.trivia_qa_rows, references=True,
    ),
    "wmt14_ende": _translate("wmt14_translate/de-en", "de"),
    "wmt14_enfr": _translate("wmt14_translate/fr-en", "fr"),
    "wmt19_ende": dataclasses.replace(
        _translate("wmt19_translate/de-en", "de"),
        splits=_TRAIN_AND_VALIDATION,
    ),
}  # fmt: skip

TASKS = GLUE | SUPER_GLUE | OTHERS | EXTRA
SUPERVISED = {name: task for name, task in TASKS.items() if task.examples}
MULTI_TASK_CAP = 2**19  # The cap K. The paper tries 2^16 to 2^21, and this is about the best.
TEMPERATURE_CAP = 2**21  # The paper's K together with a temperature, of which 2 is the best.
_UNSUPERVISED_RATE = 1e6  # The rate of the unsupervised task in T5's all_mix.


def proportional(
    names: Sequence[str], cap: float = MULTI_TASK_CAP, temperature: float = 1.0
) -> Rates:
    """Return tasks with the paper's rates (section 3.5.2): min(examples, K) ** (1 / T).

    GLUE and SuperGLUE share the examples of RTE. Where both tasks are named, each counts as half.

    Args:
        names: Names of tasks in `SUPERVISED`.
        cap: K.
        temperature: T.
    """
    has_both_rte = {"glue_rte", "super_glue_rte"} <= set(names)
    rates = []
    for name in names:
        examples: float = min(SUPERVISED[name].examples, cap)
        if has_both_rte and name.endswith("_rte"):
            examples *= 0.5
        rates.append((f"t5_{name}", examples ** (1 / temperature)))
    return rates


def _equal(names: Iterable[str]) -> Rates:
    return [(f"t5_{name}", 1.0) for name in names]


def _evaluated(tasks: Mapping[str, Task]) -> list[str]:
    return [name for name, task in tasks.items() if "validation" in task.splits]


def mixtures() -> dict[str, Rates]:
    """Return mixture name -> rates. Comments give T5's own names where they differ."""
    glue = [name for name in GLUE if name in SUPERVISED]
    super_glue = [name for name in SUPER_GLUE if name in SUPERVISED]
    everything = list(SUPERVISED)
    result = {
        "glue_proportional": proportional(glue),  # glue_v002_proportional
        "super_glue_proportional": proportional(super_glue),  # super_glue_v102_proportional
        "glue_eval": _equal(_evaluated(GLUE)),
        "super_glue_eval": _equal(_evaluated(SUPER_GLUE)),
        "wsc_dpr_proportional": proportional(["super_glue_wsc", "dpr"]),
        "squad_trivia_qa_equal": _equal(["squad", "trivia_qa"]),
        "t5_all_proportional": proportional(everything),  # all_proportional
        "t5_all_temperature": proportional(everything, TEMPERATURE_CAP, 2.0),
        "t5_all_equal": _equal(everything),  # all_equal
    }
    left_out = {"glue": glue, "super_glue": super_glue} | {name: [name] for name in OTHERS}
    for name, out in left_out.items():
        kept = [task for task in everything if task not in out]
        result[f"t5_leave_one_out_{name}"] = proportional(kept)
    return result


def register(root: str) -> None:
    """Register all tasks and mixtures. No data is read."""
    for name, task in TASKS.items():
        fields = ("inputs", "targets")
        source = TfdsRowsSource(
            task.dataset,
            task.render,
            task.splits,
            root,
            (*fields, "references") if task.references else fields,
            task.expand,
        )
        register_task(f"t5_{name}", source, metric_fns=task.metric_fns)
    for name, rates in mixtures().items():
        register_mixture(name, rates)
    vocabulary = os.path.join(root, "sentencepiece.model")
    if root and os.path.isfile(vocabulary):
        objectives.register_c4(root, vocabulary)
        # T5's all_mix. (Its all_proportional and all_equal have C4 too, at the cap K and at 1.)
        unsupervised = ("t5_c4_span_corruption", _UNSUPERVISED_RATE)
        register_mixture("t5_all_mix", [*proportional(list(SUPERVISED)), unsupervised])
