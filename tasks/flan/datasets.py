"""The data sets of FLAN 2021 (arXiv:2109.01652): clusters, sources, splits.

Seventy data sets share 61 groups of templates (`tasks/flan/templates/`). `tasks.flan.readers` turns
a row into the fields that the templates name. Names and splits are those of TFDS 4.9.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match
from tasks.flan import completion_readers as complete
from tasks.flan import generation_readers as read_text
from tasks.flan import readers as read
from tasks.flan.dataset import (
    VALIDATION_EXAMPLES,
    Dataset,
    Reader,
    carved,
    parallel_corpus,
    sliced,
    standard,
    train_only,
)
from tasks.flan.metrics import best_rouge, edit_distance, f1, mean_class_f1, trivia_qa
from tasks.flan.rows import Part
from tasks.t5.metrics import bleu, correlations, rouge, squad


class _Entry(NamedTuple):
    """A line of the table: the first fields of a `Dataset`, and options that it sets itself."""

    name: str
    tfds: str
    read: Reader
    splits: Mapping[str, Part]
    options: Mapping[str, Any]


class _Cluster(NamedTuple):
    """A cluster: the options that all of its data sets share, and the data sets."""

    options: Mapping[str, Any]
    entries: list[_Entry]


def _entry(
    name: str, tfds: str, reader: Reader, splits: Mapping[str, Part], **options: Any
) -> _Entry:
    return _Entry(name, tfds, reader, splits, options)


# The labels mean entailment, neutral, contradiction.
_NLI = read.labeled(("yes", "it is not possible to tell", "no"), "premise", "hypothesis")
# The labels mean entailment, contradiction, neutral.
_CB = read.labeled(("Yes", "No", "It's impossible to say"), "premise", "hypothesis")


def _anli(round_name: str) -> _Entry:
    return _entry(f"anli_{round_name}", f"anli/{round_name}", read.anli, standard(), group="anli")


def _mnli(kind: str) -> _Entry:
    return _entry(f"mnli_{kind}", "glue/mnli", _NLI, carved(f"validation_{kind}"), group="mnli")


def _wmt16(code: str, language: str) -> _Entry:
    return _entry(
        f"wmt16_translate_{code}en",
        f"wmt16_translate/{code}-en",
        read_text.translation(code, "foreign", language),
        standard(),
        group="wmt16_translate",
    )


_SUMMARIES = {"metrics": (rouge,)}
_TEXTS = {"metrics": (best_rouge,), "references": True}
_TRANSLATIONS = {"metrics": (bleu,)}
_OPTIONS = {"choices": True}
_SPANS = {"metrics": (squad,), "references": True}
_QUESTIONS = {"metrics": (trivia_qa,), "references": True}
_SAME_OR_NOT = {"metrics": (f1, exact_match)}
# A data set with options in a cluster whose other data sets have references.
_CHOICES: Mapping[str, Any] = {"choices": True, "references": False, "metrics": (exact_match,)}
_NO_YES = ("no", "yes")
_YES_NO = ("yes", "no")
_SUMMARY = read.renamed(text="document", summary="summary")

_CLUSTERS: Mapping[str, _Cluster] = {
    "summarization": _Cluster(_SUMMARIES, [
        _entry("aeslc", "aeslc", read_text.aeslc,
               standard() | {"validation": Part("validation", -VALIDATION_EXAMPLES)}),
        _entry("cnn_dailymail", "cnn_dailymail", read_text.cnn_dailymail, standard()),
        _entry("gigaword", "gigaword", read_text.gigaword, standard()),
        _entry("multi_news", "multi_news", _SUMMARY, standard()),
        _entry("newsroom", "newsroom",
               read.renamed(text="text", summary="summary", title="title"), standard()),
        _entry("samsum", "samsum", read_text.samsum, standard()),
        _entry("xsum", "xsum", _SUMMARY, standard()),
        _entry("ag_news_subset", "ag_news_subset", read.ag_news, carved("test"),
               choices=True, metrics=(exact_match,)),
        _entry("opinion_abstracts_idebate", "opinion_abstracts/idebate",
               read_text.idebate, train_only(100)),
        _entry("opinion_abstracts_rotten_tomatoes", "opinion_abstracts/rotten_tomatoes",
               read_text.rotten_tomatoes, train_only(100)),
        _entry("wiki_lingua_english_en", "gem/wiki_lingua_english_en",
               read.renamed(source="source", target="target"), standard()),
    ]),
    "structure_to_text": _Cluster(_TEXTS, [
        # FLAN tests on the validation splits, although three of the four publish test splits.
        _entry("web_nlg_en", "gem/web_nlg_en", read_text.web_nlg, carved()),
        _entry("common_gen", "gem/common_gen", read_text.common_gen, carved()),
        _entry("e2e_nlg", "gem/e2e_nlg", read_text.e2e_nlg, carved()),
        _entry("dart", "gem/dart", read_text.dart, carved()),
    ]),
    "reading_comprehension": _Cluster(_SPANS, [
        _entry("squad_v1", "squad/v1.1", read.squad, carved()),
        _entry("squad_v2", "squad/v2.0", read.squad, carved()),
        _entry("drop", "drop", read.drop, carved("dev")),
        _entry("multirc", "super_glue/multirc", read.multirc, carved(),
               **{**_CHOICES, **_SAME_OR_NOT}),
        _entry("openbookqa", "openbookqa", read.openbookqa, standard(), **_CHOICES),
        _entry("bool_q", "bool_q", read.bool_q, carved(), **_CHOICES),
    ]),
    "read_comp_and_common_sense": _Cluster(_OPTIONS, [
        _entry("record", "super_glue/record", complete.record, carved(), references=True,
               metrics=(squad,)),
        _entry("cosmos_qa", "cosmos_qa", read.cosmos_qa, carved()),
    ]),
    "open_domain_qa": _Cluster(_QUESTIONS, [
        _entry("trivia_qa", "trivia_qa/rc", read.trivia_qa, carved()),
        _entry("natural_questions", "natural_questions_open", read.natural_questions, carved()),
        _entry("arc_easy", "ai2_arc/ARC-Easy", read.arc, carved("test"), group="arc", **_CHOICES),
        _entry("arc_challenge", "ai2_arc/ARC-Challenge", read.arc, carved("test"), group="arc",
               **_CHOICES),
    ]),
    "common_sense": _Cluster(_OPTIONS, [
        _entry("copa", "super_glue/copa", read.copa, carved(n=50)),
        _entry("hellaswag", "hellaswag", complete.hellaswag, carved()),
        _entry("story_cloze", "story_cloze/2016", complete.story_cloze,
               carved("test", "validation")),
        _entry("piqa", "piqa", read.piqa, carved(n=100)),
    ]),
    "entailment": _Cluster(_OPTIONS, [
        _anli("r1"), _anli("r2"), _anli("r3"),
        _entry("cb", "super_glue/cb", _CB, carved(n=50), metrics=(mean_class_f1, exact_match)),
        _entry("rte", "super_glue/rte", read.labeled(_YES_NO, "premise", "hypothesis"), carved()),
        _mnli("matched"), _mnli("mismatched"),
        _entry("qnli", "glue/qnli", read.labeled(_YES_NO, "question", "sentence"), carved()),
        _entry("wnli", "glue/wnli",
               read.labeled(_NO_YES, premise="sentence1", hypothesis="sentence2"), carved(n=30)),
        _entry("snli", "snli", _NLI, standard()),
    ]),
    "paraphrase": _Cluster(_OPTIONS, [
        _entry("mrpc", "glue/mrpc", read.labeled(_NO_YES, "sentence1", "sentence2"), carved(),
               **_SAME_OR_NOT),
        _entry("qqp", "glue/qqp", read.qqp, carved(), **_SAME_OR_NOT),
        _entry("paws_wiki", "paws_wiki",
               read.labeled(_NO_YES, "sentence1", "sentence2"), standard()),
        _entry("stsb", "glue/stsb", read.stsb, carved(n=100), metrics=(correlations,)),
    ]),
    "sentiment": _Cluster(_OPTIONS, [
        _entry("imdb", "imdb_reviews", read.labeled(read.SENTIMENT, "text"), carved("test")),
        _entry("sentiment140", "sentiment140", read.sentiment140, carved("test")),
        _entry("yelp_polarity", "yelp_polarity_reviews", read.yelp, carved("test")),
        _entry("sst2", "glue/sst2", read.labeled(read.SENTIMENT, text="sentence"), carved()),
    ]),
    "coreference": _Cluster(_OPTIONS, [
        _entry("definite_pronoun_resolution", "definite_pronoun_resolution",
               read.dpr, carved("test")),
        _entry("winogrande", "winogrande", complete.winogrande, carved(train="train_xl")),
        _entry("wsc", "super_glue/wsc.fixed",
               read.labeled(_NO_YES, "text", span1="span1_text", span2="span2_text"), carved(n=50)),
        _entry("wsc273", "wsc273", complete.wsc273, {"test": Part("test")}),
    ]),
    "translation": _Cluster(_TRANSLATIONS, [
        _entry("para_crawl_enes", "para_crawl/enes", read_text.translation("es", "spanish"),
               parallel_corpus(), group="para_crawl"),
        _entry("wmt14_enfr", "wmt14_translate/fr-en",
               read_text.translation("fr", "french"), standard()),
        _wmt16("de", "German"), _wmt16("tr", "Turkish"), _wmt16("cs", "Czech"),
        _wmt16("fi", "Finnish"), _wmt16("ro", "Romanian"), _wmt16("ru", "Russian"),
    ]),
    "conversational_qa": _Cluster(_QUESTIONS, [
        _entry("quac", "quac", read.quac, carved()),
        _entry("coqa", "coqa", read.coqa, carved("test", n=100), references=False,
               metrics=(squad,)),
    ]),
    "text_formatting": _Cluster({"metrics": (exact_match, edit_distance)}, [
        _entry("true_case", "para_crawl/enda", read_text.true_case, sliced(0)),
        _entry("fix_punct", "para_crawl/enda", read_text.fix_punct, sliced(1)),
        _entry("word_segment", "para_crawl/enda", read_text.word_segment, sliced(2)),
    ]),
    "math_dataset": _Cluster({}, [
        _entry("math_dataset", "math_dataset/algebra__linear_1d",
               read.renamed(question="question", answer="answer"), carved("test")),
    ]),
    "wic": _Cluster(_OPTIONS, [
        _entry("wic", "super_glue/wic",
               read.labeled(("different meanings", "the same meaning"),
                            "word", "sentence1", "sentence2"), carved()),
    ]),
    "cola": _Cluster(_OPTIONS, [
        _entry("cola", "glue/cola",
               read.labeled(("unacceptable", "acceptable"), "sentence"), carved()),
    ]),
    "trec": _Cluster(_OPTIONS, [
        _entry("trec", "trec", read.trec, carved("test")),
    ]),
}  # fmt: skip


def _datasets() -> dict[str, Dataset]:
    datasets = {}
    for cluster_name, cluster in _CLUSTERS.items():
        for entry in cluster.entries:
            datasets[entry.name] = Dataset(
                entry.name,
                cluster_name,
                entry.tfds,
                entry.read,
                entry.splits,
                **{**cluster.options, **entry.options},
            )
    return datasets


DATASETS: Mapping[str, Dataset] = _datasets()
# Cluster -> the names of its data sets.
CLUSTERS: Mapping[str, tuple[str, ...]] = {
    name: tuple(entry.name for entry in cluster.entries) for name, cluster in _CLUSTERS.items()
}

# Tested cluster -> the other clusters that must not be trained on. The paper states the exclusion
# of the mixed cluster `read_comp_and_common_sense` for tests of its two parents only; excluding the
# parents when the mixed cluster is tested is our strict reading.
RELATED: Mapping[str, tuple[str, ...]] = {
    "reading_comprehension": ("read_comp_and_common_sense",),
    "common_sense": ("read_comp_and_common_sense",),
    "read_comp_and_common_sense": ("reading_comprehension", "common_sense"),
    "paraphrase": ("entailment",),
    "entailment": ("paraphrase",),
}


def excluded_with(cluster: str) -> tuple[str, ...]:
    """Return the clusters that cannot be trained on when `cluster` is tested, itself first.

    Raises:
        UserError: There is no such cluster.
    """
    if cluster not in CLUSTERS:
        raise UserError(f"FLAN has no cluster {cluster!r}; it has: {', '.join(CLUSTERS)}")
    return (cluster, *RELATED.get(cluster, ()))
