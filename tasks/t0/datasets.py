"""T0's data sets (Sanh et al. 2021, arXiv:2110.08207; `t0/datasets.csv` of its repository).

For each data set: the stage that trains on it, whether the held-out evaluation or the evaluation of
biases has it, and its number of training examples.
"""

import dataclasses
from collections.abc import Mapping

STAGES = ("BASE", "GPT_EVAL", "SGLUE")  # T0 trains on the first, T0+ on two, T0++ on all three.
_ANLI_ROUNDS = ("r1", "r2", "r3")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, by the names of Hugging Face.

    Attributes:
        name: The name of the data set.
        subset: Its configuration; "" for none.
        train: The stage that trains on it; "" for none.
        evaluation: "BASE" (held-out tasks), "BIAS_FAIRNESS" or "".
        train_size: The number of training examples from which T0's rates are computed.
        splits: Our split -> the data set's. Only splits with labels are listed.
        suffix: The end of the tasks' names, by which the rounds of ANLI differ.
    """

    name: str
    subset: str
    train: str
    evaluation: str
    train_size: int
    splits: Mapping[str, str]
    suffix: str = ""

    @property
    def full_name(self) -> str:
        """The name and the subset, separated by a slash if there is a subset."""
        return f"{self.name}/{self.subset}".strip("/")

    @property
    def usable_splits(self) -> dict[str, str]:
        """The splits of its tasks: "train" only if a stage trains on it."""
        return {
            ours: theirs for ours, theirs in self.splits.items() if ours != "train" or self.train
        }


_TRAIN_AND_VALIDATION = {"train": "train", "validation": "validation"}
_TRAIN_AND_TEST = {"train": "train", "test": "test"}
# The data sets whose labeled splits are not train and validation. (This comes from their own pages
# and not from T0's table.)
_SPLITS: Mapping[str, Mapping[str, str]] = {
    "ag_news": _TRAIN_AND_TEST,
    "amazon_polarity": _TRAIN_AND_TEST,
    "app_reviews": {"train": "train"},
    "crows_pairs": {"test": "test"},
    "dbpedia_14": _TRAIN_AND_TEST,
    "imdb": _TRAIN_AND_TEST,
    "jigsaw_toxicity_pred": _TRAIN_AND_TEST,
    "story_cloze": {"validation": "validation", "test": "test"},
    "super_glue/axg": {"test": "test"},
    "trec": _TRAIN_AND_TEST,
    "web_questions": _TRAIN_AND_TEST,
    "wiki_bio": {"train": "train", "validation": "val"},
    "wino_bias": {"validation": "validation", "test": "test"},
    "yelp_review_full": _TRAIN_AND_TEST,
}

# name[/subset], stage, evaluation, training examples.
_TABLE = """
crows_pairs                - BIAS_FAIRNESS 0
jigsaw_toxicity_pred       - BIAS_FAIRNESS 0
super_glue/axg             - BIAS_FAIRNESS 0
wino_bias/type1_anti       - BIAS_FAIRNESS 0
wino_bias/type2_anti       - BIAS_FAIRNESS 0
wino_bias/type1_pro        - BIAS_FAIRNESS 0
wino_bias/type2_pro        - BIAS_FAIRNESS 0
super_glue/wsc.fixed       SGLUE BASE 554
winogrande/winogrande_xl   - BASE 40398
super_glue/cb              - BASE 250
super_glue/rte             - BASE 2490
anli                       - BASE 162865
glue/mrpc                  BASE - 3668
glue/qqp                   BASE - 363846
paws/labeled_final         BASE - 49401
ai2_arc/ARC-Challenge      GPT_EVAL - 1119
ai2_arc/ARC-Easy           GPT_EVAL - 2251
kilt_tasks/hotpotqa        BASE - 88869
trivia_qa/unfiltered       GPT_EVAL - 87622
web_questions              GPT_EVAL - 3778
wiki_qa                    BASE - 20360
adversarial_qa/dbidaf      BASE - 10000
adversarial_qa/dbert       BASE - 10000
adversarial_qa/droberta    BASE - 10000
duorc/SelfRC               BASE - 60721
duorc/ParaphraseRC         BASE - 69524
ropes                      BASE - 10924
squad_v2                   GPT_EVAL - 130319
super_glue/record          SGLUE - 100730
quoref                     BASE - 19399
cos_e/v1.11                BASE - 9741
cosmos_qa                  BASE - 25262
dream                      BASE - 6116
openbookqa/main            GPT_EVAL - 4957
qasc                       BASE - 8134
quail                      BASE - 10246
quarel                     BASE - 1941
quartz                     BASE - 2696
race/high                  GPT_EVAL - 62445
race/middle                GPT_EVAL - 25421
sciq                       BASE - 11679
social_i_qa                BASE - 33410
super_glue/boolq           SGLUE - 9427
super_glue/copa            SGLUE BASE 400
super_glue/multirc         SGLUE - 27243
wiki_hop/original          BASE - 43738
wiqa                       BASE - 29808
piqa                       GPT_EVAL - 16113
amazon_polarity            BASE - 3600000
app_reviews                BASE - 288065
imdb                       BASE - 25000
rotten_tomatoes            BASE - 8530
yelp_review_full           BASE - 650000
story_cloze/2016           - BASE 0
hellaswag                  GPT_EVAL BASE 39905
common_gen                 BASE - 67389
wiki_bio                   BASE - 582659
cnn_dailymail/3.0.0        BASE - 287113
gigaword                   BASE - 3803957
multi_news                 BASE - 44972
samsum                     BASE - 14732
xsum                       BASE - 204045
ag_news                    BASE - 120000
dbpedia_14                 BASE - 560000
trec                       BASE - 5452
super_glue/wic             SGLUE BASE 5428
"""

# Tasks that are left out of every mixture, as in T0, whose cached files of them were broken.
LEFT_OUT = ("gigaword_summarize_",)
# Data sets that T0 trains on but does not score while it trains. (T0 looks for their names in the
# names of tasks, with the same result.)
NOT_SCORED = frozenset(
    "adversarial_qa/dbert adversarial_qa/dbidaf amazon_polarity app_reviews dbpedia_14 dream "
    "duorc/ParaphraseRC gigaword imdb multi_news paws/labeled_final samsum trec wiki_bio".split()
)
# Tasks of other data sets whose twins T0 does not score either: their cached files were broken.
# (Its list has tasks of amazon_polarity and dbpedia_14 as well.)
TASKS_NOT_SCORED = frozenset(
    f"wiki_hop_original_choose_best_object_{kind}"
    for kind in (
        "affirmative_1", "affirmative_2", "affirmative_3", "interrogative_1", "interrogative_2",
    )
)  # fmt: skip


def _datasets() -> tuple[Dataset, ...]:
    result = []
    for line in _TABLE.strip().splitlines():
        full_name, train, evaluation, size = line.split()
        name, _, subset = full_name.partition("/")
        train = train.strip("-")
        evaluation = evaluation.strip("-")
        if name == "anli":
            # The rounds are splits of one data set, and tasks of their own.
            for anli_round in _ANLI_ROUNDS:
                splits = {"validation": f"dev_{anli_round}", "test": f"test_{anli_round}"}
                suffix = f"_{anli_round}"
                result.append(Dataset(name, "", train, evaluation, int(size), splits, suffix))
            continue
        published = _SPLITS.get(full_name) or _SPLITS.get(name) or _TRAIN_AND_VALIDATION
        result.append(Dataset(name, subset, train, evaluation, int(size), published))
    return tuple(result)


DATASETS = _datasets()
