"""T0's datasets (Sanh et al. 2021, arXiv:2110.08207; `t0/datasets.csv` of its repository).

One line a dataset: in which stage it is trained on, whether the held-out evaluation or the bias
evaluation has it, and how many training examples it has.
"""

import dataclasses
from collections.abc import Mapping

STAGES = ("BASE", "GPT_EVAL", "SGLUE")  # T0 trains on the first, T0+ on two, T0++ on all three.


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset by Hugging Face's names.

    Attributes:
      name: the dataset.
      subset: its configuration; "" for none.
      train: the stage that trains on it; "" for none.
      evaluation: "BASE" (held-out tasks), "BIAS_FAIRNESS" or "".
      train_size: training examples, as T0's rates use them.
      splits: our split -> the dataset's, those with labels only.
      suffix: of the tasks' names; ANLI's rounds differ by it alone.
    """

    name: str
    subset: str
    train: str
    evaluation: str
    train_size: int
    splits: Mapping[str, str]
    suffix: str = ""

    @property
    def usable_splits(self) -> dict[str, str]:
        """The splits of its tasks: "train" only where a stage trains on it."""
        return {k: v for k, v in self.splits.items() if k != "train" or self.train}


_VALIDATION = {"train": "train", "validation": "validation"}
_TEST = {"train": "train", "test": "test"}
# Sets whose labelled splits are not train and validation. (Of the datasets' own pages, not of
# T0's table.)
_SPLITS: Mapping[str, Mapping[str, str]] = {
    "ag_news": _TEST,
    "amazon_polarity": _TEST,
    "app_reviews": {"train": "train"},
    "crows_pairs": {"test": "test"},
    "dbpedia_14": _TEST,
    "imdb": _TEST,
    "jigsaw_toxicity_pred": _TEST,
    "story_cloze": {"validation": "validation", "test": "test"},
    "super_glue/axg": {"test": "test"},
    "trec": _TEST,
    "web_questions": _TEST,
    "wiki_bio": {"train": "train", "validation": "val"},
    "wino_bias": {"validation": "validation", "test": "test"},
    "yelp_review_full": _TEST,
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

# Left out of every mixture, as in T0: its cached files were broken.
LEFT_OUT = ("gigaword_summarize_",)


def _datasets() -> tuple[Dataset, ...]:
    result = []
    for line in _TABLE.split("\n")[1:-1]:
        full, train, evaluation, size = line.split()
        name, _, subset = full.partition("/")
        splits = _SPLITS.get(full) or _SPLITS.get(name) or _VALIDATION
        train, evaluation = train.strip("-"), evaluation.strip("-")
        if name == "anli":  # Its rounds are splits of one dataset.
            for rnd in ("r1", "r2", "r3"):
                splits = {"validation": f"dev_{rnd}", "test": f"test_{rnd}"}
                result.append(Dataset(name, "", train, evaluation, int(size), splits, f"_{rnd}"))
        else:
            result.append(Dataset(name, subset, train, evaluation, int(size), splits))
    return tuple(result)


DATASETS = _datasets()
