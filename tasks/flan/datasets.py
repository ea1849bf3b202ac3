"""The datasets of FLAN 2021 (arXiv:2109.01652): clusters, sources, splits.

Seventy datasets share 61 groups of templates (`tasks/flan/templates/`). `tasks.flan.readers` turns
a row into the fields of its templates. Names and splits of TFDS are those of its version 4.9.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match, exact_match_normalized, rouge_l
from tasks.flan import readers as read
from tasks.flan.dataset import Dataset, Part, Reader, carved, sliced, standard, train_only


def _row(
    name: str, tfds: str, reader: Reader, splits: Mapping[str, Part], **more: Any
) -> tuple[str, str, Reader, Mapping[str, Part], dict[str, Any]]:
    return name, tfds, reader, splits, more


def _translated(languages: Sequence[str]) -> list[Any]:
    names = {
        "de": "German",
        "tr": "Turkish",
        "cs": "Czech",
        "fi": "Finnish",
        "ro": "Romanian",
        "ru": "Russian",
    }
    return [
        _row(
            f"wmt16_translate_{code}en",
            f"wmt16_translate/{code}-en",
            read.translation(code, "foreign", names[code]),
            standard(),
            group="wmt16_translate",
        )
        for code in languages
    ]


_GENERATED = {"metrics": (rouge_l,)}
_OPTIONS = {"choices": True}
_SPANS = {"metrics": (exact_match_normalized,), "references": True}
_SUMMARY = read.renamed(text="document", summary="summary")

_CLUSTERS: Mapping[str, tuple[dict[str, Any], list[Any]]] = {
    "summarization": (
        _GENERATED,
        [
            _row(
                "aeslc",
                "aeslc",
                read.renamed(body="email_body", subject="subject_line"),
                standard(),
            ),
            _row(
                "cnn_dailymail",
                "cnn_dailymail",
                read.renamed(text="article", highlights="highlights"),
                standard(),
            ),
            _row("gigaword", "gigaword", _SUMMARY, standard()),
            _row("multi_news", "multi_news", _SUMMARY, standard()),
            _row(
                "newsroom",
                "newsroom",
                read.renamed(text="text", summary="summary", title="title"),
                standard(),
            ),
            _row(
                "samsum", "samsum", read.renamed(dialogue="dialogue", summary="summary"), standard()
            ),
            _row("xsum", "xsum", _SUMMARY, standard()),
            _row(
                "ag_news_subset",
                "ag_news_subset",
                read.ag_news,
                carved("test"),
                choices=True,
                metrics=(exact_match,),
            ),
            _row(
                "opinion_abstracts_idebate",
                "opinion_abstracts/idebate",
                read.idebate,
                train_only(100),
            ),
            _row(
                "opinion_abstracts_rotten_tomatoes",
                "opinion_abstracts/rotten_tomatoes",
                read.rotten_tomatoes,
                train_only(100),
            ),
            _row(
                "wiki_lingua_english_en",
                "gem/wiki_lingua_english_en",
                read.renamed(source="source", target="target"),
                standard(),
            ),
        ],
    ),
    "structure_to_text": (
        _GENERATED | {"references": True},
        [
            _row("web_nlg_en", "gem/web_nlg_en", read.web_nlg, standard()),
            _row("common_gen", "gem/common_gen", read.common_gen, carved()),  # Its test is blind.
            _row("e2e_nlg", "gem/e2e_nlg", read.e2e_nlg, standard()),
            _row("dart", "gem/dart", read.dart, standard()),
        ],
    ),
    "reading_comprehension": (
        _SPANS,
        [
            _row("squad_v1", "squad", read.squad, carved()),
            _row("squad_v2", "squad/v2.0", read.squad, carved()),
            _row("drop", "drop", read.drop, carved("dev")),
            _row("multirc", "super_glue/multirc", read.multirc, carved(), **read.CHOICES),
            _row("openbookqa", "openbookqa", read.openbookqa, standard(), **read.CHOICES),
            _row("bool_q", "bool_q", read.bool_q, carved(), **read.CHOICES),
        ],
    ),
    "read_comp_and_common_sense": (
        _OPTIONS,
        [
            _row("record", "super_glue/record", read.record, carved(), references=True),
            _row("cosmos_qa", "cosmos_qa", read.cosmos_qa, carved()),
        ],
    ),
    "open_domain_qa": (
        _SPANS,
        [
            _row("trivia_qa", "trivia_qa/rc", read.trivia_qa, carved()),
            _row("natural_questions", "natural_questions_open", read.natural_questions, carved()),
            _row("arc_easy", "ai2_arc/ARC-Easy", read.arc, standard(), group="arc", **read.CHOICES),
            _row(
                "arc_challenge",
                "ai2_arc/ARC-Challenge",
                read.arc,
                standard(),
                group="arc",
                **read.CHOICES,
            ),
        ],
    ),
    "common_sense": (
        _OPTIONS,
        [
            _row("copa", "super_glue/copa", read.copa, carved()),
            _row("hellaswag", "hellaswag", read.endings, carved()),
            _row("story_cloze", "story_cloze/2016", read.endings, carved("test", "validation")),
            _row("piqa", "piqa", read.piqa, carved()),
        ],
    ),
    "entailment": (
        _OPTIONS,
        [
            *(
                _row(f"anli_{r}", f"anli/{r}", read.anli, standard(), group="anli")
                for r in ("r1", "r2", "r3")
            ),
            _row(
                "cb", "super_glue/cb", read.three_way("premise", "hypothesis", "ecn"), carved(n=50)
            ),
            _row(
                "rte",
                "super_glue/rte",
                read.labelled(("yes", "no"), "premise", "hypothesis"),
                carved(),
            ),
            *(
                _row(
                    f"mnli_{kind}",
                    "glue/mnli",
                    read.three_way("premise", "hypothesis", "enc"),
                    carved(f"validation_{kind}"),
                    group="mnli",
                )
                for kind in ("matched", "mismatched")
            ),
            _row(
                "qnli", "glue/qnli", read.labelled(("yes", "no"), "question", "sentence"), carved()
            ),
            _row(
                "wnli",
                "glue/wnli",
                read.labelled(("no", "yes"), premise="sentence1", hypothesis="sentence2"),
                carved(n=30),
            ),
            _row("snli", "snli", read.three_way("premise", "hypothesis", "enc"), standard()),
        ],
    ),
    "paraphrase": (
        _OPTIONS,
        [
            _row(
                "mrpc",
                "glue/mrpc",
                read.labelled(("no", "yes"), "sentence1", "sentence2"),
                carved(),
            ),
            _row(
                "qqp", "glue/qqp", read.labelled(("no", "yes"), "question1", "question2"), carved()
            ),
            _row(
                "paws_wiki",
                "paws_wiki",
                read.labelled(("no", "yes"), "sentence1", "sentence2"),
                standard(),
            ),
            _row("stsb", "glue/stsb", read.stsb, carved()),
        ],
    ),
    "sentiment": (
        _OPTIONS,
        [
            _row("imdb", "imdb_reviews", read.labelled(read.SENTIMENT, "text"), carved("test")),
            _row("sentiment140", "sentiment140", read.sentiment140, carved("test")),
            _row(
                "yelp_polarity",
                "yelp_polarity_reviews",
                read.labelled(read.SENTIMENT, "text"),
                carved("test"),
            ),
            _row("sst2", "glue/sst2", read.labelled(read.SENTIMENT, text="sentence"), carved()),
        ],
    ),
    "coreference": (
        _OPTIONS,
        [
            _row(
                "definite_pronoun_resolution",
                "definite_pronoun_resolution",
                read.dpr,
                carved("test"),
            ),
            _row("winogrande", "winogrande", read.winogrande, carved(train="train_xl")),
            _row(
                "wsc",
                "super_glue/wsc.fixed",
                read.labelled(("no", "yes"), "text", span1="span1_text", span2="span2_text"),
                carved(n=50),
            ),
            _row("wsc273", "wsc273", read.wsc273, {"test": Part("test")}),
        ],
    ),
    "translation": (
        _GENERATED,
        [
            _row(
                "para_crawl_enes",
                "para_crawl/enes",
                read.translation("es", "spanish"),
                sliced(0),
                group="para_crawl",
            ),
            _row(
                "wmt14_enfr", "wmt14_translate/fr-en", read.translation("fr", "french"), standard()
            ),
            *_translated(("de", "tr", "cs", "fi", "ro", "ru")),
        ],
    ),
    "conversational_qa": (
        _SPANS,
        [
            _row("quac", "quac", read.quac, carved()),
            _row("coqa", "coqa", read.coqa, carved("test"), references=False, metrics=(rouge_l,)),
        ],
    ),
    "text_formatting": (
        {},
        [
            _row("true_case", "para_crawl/enes", read.true_case, sliced(1)),
            _row("fix_punct", "para_crawl/enes", read.fix_punct, sliced(2)),
            _row("word_segment", "para_crawl/enes", read.word_segment, sliced(3)),
        ],
    ),
    "math_dataset": (
        {},
        [
            _row(
                "math_dataset",
                "math_dataset/algebra__linear_1d",
                read.renamed(question="question", answer="answer"),
                carved("test"),
            ),
        ],
    ),
    "wic": (
        _OPTIONS,
        [
            _row(
                "wic",
                "super_glue/wic",
                read.labelled(("no", "yes"), "word", "sentence1", "sentence2"),
                carved(),
            ),
        ],
    ),
    "cola": (
        _OPTIONS,
        [
            _row(
                "cola",
                "glue/cola",
                read.labelled(("unacceptable", "acceptable"), "sentence"),
                carved(),
            ),
        ],
    ),
    "trec": (
        _OPTIONS,
        [
            _row("trec", "trec", read.trec, carved("test")),
        ],
    ),
}

DATASETS: Mapping[str, Dataset] = {
    name: Dataset(name, cluster, tfds, reader, splits, **(common | more))
    for cluster, (common, rows) in _CLUSTERS.items()
    for name, tfds, reader, splits, more in rows
}
CLUSTERS: Mapping[str, tuple[str, ...]] = {
    cluster: tuple(d.name for d in DATASETS.values() if d.cluster == cluster)
    for cluster in _CLUSTERS
}

# Clusters that must not be trained on when the first is tested. (That the mixed cluster excludes
# its parents too is the strict reading: the paper says it of the other direction.)
RELATED: Mapping[str, tuple[str, ...]] = {
    "reading_comprehension": ("read_comp_and_common_sense",),
    "common_sense": ("read_comp_and_common_sense",),
    "read_comp_and_common_sense": ("reading_comprehension", "common_sense"),
    "paraphrase": ("entailment",),
    "entailment": ("paraphrase",),
}


def excluded_with(cluster: str) -> tuple[str, ...]:
    """The clusters that cannot be trained on when `cluster` is tested, itself first.

    Raises:
      UserError: there is no such cluster.
    """
    if cluster not in CLUSTERS:
        raise UserError(f"FLAN has no cluster {cluster!r}; it has: {', '.join(CLUSTERS)}")
    return (cluster, *RELATED.get(cluster, ()))
