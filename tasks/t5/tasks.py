"""T5's supervised tasks and mixtures (Raffel et al. 2020, arXiv:1910.10683).

`register(root)` registers, without reading any data, a task `t5_<name>` for each entry of `TASKS`
and the mixtures of `mixtures()`. Rows come from `<root>/<dataset>/<split>.jsonl[.gz]` or
`.parquet`, e.g. `<root>/glue/mnli/train.jsonl`, or else from what TFDS has prepared. If
`<root>/sentencepiece.model` is there (T5's vocabulary file), the objectives on C4 and the mixtures
with them are registered too: see `tasks.t5.objectives`.

What differs from the released code: an unlabelled example is never right; WSC is one task, whose
split "train" holds the right referents only; evaluation-only tasks are in `glue_eval` and
`super_glue_eval` and not in the training mixtures at rate 0; the edges of padded SQuAD and
TriviaQA texts have no spaces.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ift_jax.sources.register import register_mixture, register_task
from ift_jax.sources.tfds import TfdsRowsSource
from tasks.t5 import formats as formats
from tasks.t5 import metrics as metrics
from tasks.t5 import objectives

ALL = {"train": "train", "validation": "validation", "test": "test"}
_DEV = {"validation": "validation", "test": "test"}
_REFERENCES = ("inputs", "targets", "references")
_ENTAILMENT = ("entailment", "not_entailment")


@dataclasses.dataclass(frozen=True)
class Task:
    """One task: its data, format, metrics, and the number of its training examples.

    `examples` is the published number that the mixing rates are computed from; 0: evaluated only,
    or in no mixture that needs it.
    """

    dataset: str
    render: Callable[..., dict[str, str]]
    metric_fns: tuple[Callable[..., Any], ...]
    examples: int = 0
    splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: ALL)
    expand: Callable[..., Any] | None = None
    references: bool = False


def _classify(
    dataset: str,
    keys: str,
    labels: Sequence[str],
    metric_fns: Sequence[Callable[..., Any]],
    examples: int = 0,
    name: str = "",
    **more: Any,
) -> Task:
    rename = more.pop("rename", ())
    render = functools.partial(
        formats.classification,
        name=name or dataset.rpartition("/")[2],
        keys=tuple(keys.split()),
        labels=tuple(labels),
        rename=rename,
    )
    return Task(dataset, render, tuple(metric_fns), examples, **more)


def _wmt(dataset: str, target: str, examples: int = 0) -> Task:
    render = functools.partial(formats.translate, source="en", target=target)
    return Task(dataset, render, (metrics.bleu,), examples)


_ACCURACY = (metrics.accuracy,)
_BOOLEAN = ("False", "True")
_MNLI = ("entailment", "neutral", "contradiction")
_MATCHED = {f"{s}": f"{s}_matched" for s in ("validation", "test")}
_MISMATCHED = {f"{s}": f"{s}_mismatched" for s in ("validation", "test")}

# The keys are sorted, but for MultiRC; label names in the order of TFDS's numbers.
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
    # Trained on through WSC and DPR instead: its development set contradicts its training set.
    "glue_wnli": Task(
        "glue/wnli", formats.wnli, (metrics.wsc_accuracy,), splits=_DEV, references=True
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
        "super_glue/wsc.fixed", formats.wsc, (metrics.wsc_accuracy,), 259,
        expand=formats.correct_referents, references=True,
    ),
    "dpr": Task(
        "definite_pronoun_resolution", formats.definite_pronouns, _ACCURACY, 1_322,
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

# The examples of these are TFDS's numbers, not re-counted. The two large translation sets are
# above every K, where only that matters.
OTHERS = {
    "cnn_dailymail": Task("cnn_dailymail", formats.summarize, (metrics.rouge,), 287_113),
    "squad": Task(
        "squad/v1.1", formats.squad, (metrics.squad,), 87_599,
        splits={"train": "train", "validation": "validation"}, references=True,
    ),
    "wmt_ende": _wmt("wmt_t2t_translate/de-en", "de", 4_592_289),
    "wmt15_enfr": _wmt("wmt15_translate/fr-en", "fr", 40_853_137),
    "wmt16_enro": _wmt("wmt16_translate/ro-en", "ro", 610_320),
}  # fmt: skip

EXTRA = {
    "trivia_qa": Task(
        "trivia_qa/rc", formats.trivia_qa, (metrics.squad,),
        splits={"train": "train", "validation": "validation"},
        expand=formats.trivia_qa_rows, references=True,
    ),
    "wmt14_ende": _wmt("wmt14_translate/de-en", "de"),
    "wmt14_enfr": _wmt("wmt14_translate/fr-en", "fr"),
    "wmt19_ende": dataclasses.replace(
        _wmt("wmt19_translate/de-en", "de"),
        splits={"train": "train", "validation": "validation"},
    ),
}  # fmt: skip

TASKS = GLUE | SUPER_GLUE | OTHERS | EXTRA
SUPERVISED = {name: task for name, task in TASKS.items() if task.examples}
MULTI_TASK_CAP = 2**19  # K: about the best of the paper's 2^16 ... 2^21 [from the paper].
TEMPERATURE_CAP = 2**21  # K beside a temperature, of which the best is 2 [from the paper].


def proportional(
    names: Sequence[str], cap: float = MULTI_TASK_CAP, temperature: float = 1.0
) -> list[tuple[str, float]]:
    """Tasks with the paper's rates (section 3.5.2): min(examples, K) ** (1 / T).

    RTE's examples are in GLUE and in SuperGLUE: where both are named, each counts as half.
    """
    both = {"glue_rte", "super_glue_rte"} <= set(names)
    result = []
    for name in names:
        examples = min(SUPERVISED[name].examples, cap)
        share = 0.5 if both and name.endswith("_rte") else 1.0
        result.append((f"t5_{name}", (share * examples) ** (1 / temperature)))
    return result


def mixtures() -> dict[str, list[tuple[str, float]]]:
    """Mixture name -> task names and rates. T5's own names, where they differ, in comments."""
    glue, super_glue = ([n for n in names if n in SUPERVISED] for names in (GLUE, SUPER_GLUE))
    everything = list(SUPERVISED)
    result = {
        "glue_proportional": proportional(glue),  # glue_v002_proportional
        "super_glue_proportional": proportional(super_glue),  # super_glue_v102_proportional
        "glue_eval": [(f"t5_{name}", 1.0) for name in GLUE if "validation" in GLUE[name].splits],
        "super_glue_eval": [
            (f"t5_{name}", 1.0) for name in SUPER_GLUE if "validation" in SUPER_GLUE[name].splits
        ],
        "wsc_dpr_proportional": proportional(["super_glue_wsc", "dpr"]),
        "squad_trivia_qa_equal": [("t5_squad", 1.0), ("t5_trivia_qa", 1.0)],
        "t5_all_proportional": proportional(everything),  # all_proportional
        "t5_all_temperature": proportional(everything, TEMPERATURE_CAP, 2.0),
        "t5_all_equal": [(f"t5_{name}", 1.0) for name in everything],  # all_equal
    }
    left_out = {"glue": glue, "super_glue": super_glue} | {name: [name] for name in OTHERS}
    for name, out in left_out.items():
        kept = [task for task in everything if task not in out]
        result[f"t5_leave_one_out_{name}"] = proportional(kept)
    return result


def register(root: str) -> None:
    """Registers all tasks and mixtures; no data is read."""
    for name, task in TASKS.items():
        source = TfdsRowsSource(
            task.dataset,
            task.render,
            task.splits,
            root,
            _REFERENCES if task.references else _REFERENCES[:2],
            **({"expand": task.expand} if task.expand else {}),
        )
        register_task(f"t5_{name}", source, metric_fns=task.metric_fns)
    for name, rates in mixtures().items():
        register_mixture(name, rates)
    vocabulary = os.path.join(root, "sentencepiece.model")
    if root and os.path.isfile(vocabulary):
        objectives.register_c4(root, vocabulary)
        # T5's all_mix: the unsupervised task at a rate of 1e6. Its all_proportional and all_equal
        # have C4 too, at the cap K and at 1.
        register_mixture(
            "t5_all_mix", [*proportional(list(SUPERVISED)), ("t5_c4_span_corruption", 1e6)]
        )
