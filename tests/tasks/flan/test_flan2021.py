"""FLAN 2021: templates, rows, prompts, splits and caps, mixtures, hold-outs."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from ift_jax.errors import UserError
from ift_jax.preparation.mixing_rates import mixing_rates
from tasks.flan import flan2021, prompts
from tasks.flan.datasets import CLUSTERS, DATASETS
from tasks.flan.option_styles import PLAIN, OptionStyle
from tasks.flan.source import FlanSource, Form
from tests.tasks.flan.flan_rows import row_of

pytestmark = pytest.mark.usefixtures("own_registry")


def _example(name):
    [fields] = DATASETS[name].read(row_of(name))
    return fields


def _write(root, name, rows, split="train"):
    folder = root.joinpath(*DATASETS[name].tfds.split("/"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _rows(name, n):
    field = {"rte": "hypothesis", "math_dataset": "question", "trivia_qa": "question"}[name]
    return [row_of(name, **{field: f"Number {k}."}) for k in range(n)]


def _source(root, name, **form):
    return FlanSource(DATASETS[name], str(root), Form(**form))


def test_clusters_are_those_of_the_paper():
    sizes = {cluster: len(names) for cluster, names in CLUSTERS.items()}
    assert sizes == {
        "summarization": 11,
        "structure_to_text": 4,
        "reading_comprehension": 6,
        "read_comp_and_common_sense": 2,
        "open_domain_qa": 4,
        "common_sense": 4,
        "entailment": 10,
        "paraphrase": 4,
        "sentiment": 4,
        "coreference": 4,
        "translation": 8,
        "conversational_qa": 2,
        "text_formatting": 3,
        "math_dataset": 1,
        "wic": 1,
        "cola": 1,
        "trec": 1,
    }
    assert len(DATASETS) == 70
    assert len({dataset.templates for dataset in DATASETS.values()}) == 61


def test_every_group_has_ten_different_templates_and_at_most_three_are_inverted():
    groups = {d.templates: prompts.groups()[d.templates] for d in DATASETS.values()}
    everything = [template.input for group in groups.values() for template in group]
    assert len(everything) == 610
    assert len({re.sub(r"\W+", " ", text).lower() for text in everything}) == 610
    for name, group in groups.items():
        assert len(group) == prompts.PER_GROUP, name
        assert sum(template.inverted for template in group) <= 3, name
        assert [t.inverted for t in group] == sorted(t.inverted for t in group), name


def test_no_template_has_the_words_of_flans_own():
    # Digests of FLAN's shorter templates, without punctuation and with fields as one word.
    path = Path(__file__).with_name("wording_of_flan.txt")
    originals = set(path.read_text().split())

    def digest(text):
        text = re.sub(r"\[\[.*?\]\]", " ", text.replace("{options}", " "))
        text = re.sub(r"\{\w+\}", " qfieldq ", text).lower()
        words = re.sub(r"[^a-z0-9']+", " ", text).replace("'", "").split()
        return hashlib.sha256(" ".join(words).encode()).hexdigest()[:10]

    assert digest("{lower}\n\nMake this proper case.") in originals  # One that is FLAN's.
    for name, group in prompts.groups().items():
        for template in group:
            assert digest(template.input) not in originals, (name, template.input)


def test_prompts_to_the_letter(tmp_path):
    rte = prompts.groups()["rte"]
    fields = _example("rte")
    assert prompts.fill(rte[0], fields, PLAIN) == (
        'All doors are red.\n\nFrom this alone, would you infer that "The front door is red."?\n'
        "OPTIONS:\n- yes\n- no",
        "yes",
    )
    assert prompts.fill(rte[0], fields, None) == (
        'All doors are red.\n\nFrom this alone, would you infer that "The front door is red."?',
        "yes",
    )
    lettered = OptionStyle("Choices:", "A", "({})", "; ", "Choose one.")
    assert prompts.fill(rte[7], fields, lettered) == (
        'Q: Does "All doors are red." imply "The front door is red."?\n'
        "Choices:\n(A) yes; (B) no\nChoose one.\nA:",
        "(A)",
    )
    assert prompts.fill(rte[8], fields, lettered) == (
        "All doors are red.\n\nWrite a sentence such that the question whether it follows from the "
        'text above is answered "yes".',
        "The front door is red.",
    )
    assert prompts.fill(
        prompts.groups()["wmt16_translate"][1], _example("wmt16_translate_deen"), None
    ) == ("Good day.\n\nTranslation into German:", "Good day in de.")
    _write(tmp_path, "trivia_qa", _rows("trivia_qa", 202))
    [first, _] = _source(tmp_path, "trivia_qa", shots=1, template=4).records("train")
    assert first == {
        "inputs": "Q: Number 1.\nA:\nmars\n\nQ: Number 0.\nA:",
        "targets": "mars",
        "references": '["mars", "red planet"]',
    }


def test_splits_and_caps(tmp_path):
    _write(tmp_path, "rte", _rows("rte", 230))
    _write(tmp_path, "rte", _rows("rte", 7), "validation")
    source = _source(tmp_path, "rte", options="none", template=1)
    texts = {s: [r["inputs"] for r in source.records(s)] for s in ("train", "validation", "test")}
    assert [len(texts[split]) for split in texts] == [30, 200, 7]
    assert not set(texts["train"]) & set(texts["validation"])
    _write(tmp_path, "math_dataset", _rows("math_dataset", 30_400))
    source = _source(tmp_path, "math_dataset")
    assert source.num_input_examples("train") == 30_000
    assert source.num_input_examples("validation") == 200


def _numbers(name, rows, published):
    """Return split -> the numbers of the rows, of published splits with so many rows."""
    result = {}
    for split, part in DATASETS[name].splits.items():
        count = published.get(part.split, rows)
        numbers = range(count)[part.start : part.stop]
        numbers = numbers[: max(count - part.reserved - numbers.start, 0)]
        result[split] = numbers[:30_000] if split == "train" else numbers
    return result


# Data set -> published training rows, and FLAN's slices of them: train, validation, test. A test
# split of its own is None.
SLICES = {
    "rte": (2_490, (0, 2_290), (2_290, 2_490), None),
    "copa": (400, (0, 350), (350, 400), None),
    "cb": (250, (0, 200), (200, 250), None),
    "wsc": (554, (0, 504), (504, 554), None),
    "wnli": (635, (0, 605), (605, 635), None),
    "piqa": (16_113, (0, 16_013), (16_013, 16_113), None),
    "stsb": (5_749, (0, 5_649), (5_649, 5_749), None),
    "coqa": (7_199, (0, 7_099), (7_099, 7_199), None),
    "arc_easy": (2_251, (0, 2_051), (2_051, 2_251), None),
    "arc_challenge": (1_119, (0, 919), (919, 1_119), None),
    "story_cloze": (1_871, (0, 1_671), (1_671, 1_871), None),
    "definite_pronoun_resolution": (1_322, (0, 1_122), (1_122, 1_322), None),
    "squad_v1": (87_599, (0, 30_000), (87_399, 87_599), None),
    "dart": (62_659, (0, 30_000), (62_459, 62_659), None),
    "opinion_abstracts_idebate": (2_259, (0, 1_659), (1_659, 1_759), (1_759, 2_259)),
    "opinion_abstracts_rotten_tomatoes": (3_731, (0, 3_131), (3_131, 3_231), (3_231, 3_731)),
    "para_crawl_enes": (10**6, (0, 30_000), (998_800, 999_000), (999_000, 10**6)),
    "true_case": (10**6, (0, 30_000), (30_000, 30_200), (997_000, 10**6)),
    "fix_punct": (10**6, (30_200, 60_200), (60_200, 60_400), (997_000, 10**6)),
    "word_segment": (10**6, (60_400, 90_400), (90_400, 90_600), (997_000, 10**6)),
}


@pytest.mark.parametrize("name", SLICES)
def test_splits_are_flans_slices(name):
    rows, *slices = SLICES[name]
    got = _numbers(name, rows, {})
    for split, expected in zip(("train", "validation", "test"), slices, strict=True):
        if expected:
            assert (got[split].start, got[split].stop) == expected, split
        else:
            assert DATASETS[name].splits[split].split != DATASETS[name].splits["train"].split


def test_flan_tests_these_on_their_validation_splits():
    for name in ("web_nlg_en", "common_gen", "e2e_nlg", "dart", "record", "hellaswag"):
        assert DATASETS[name].splits["test"].split == "validation"
    aeslc = DATASETS["aeslc"].splits["validation"]
    assert (aeslc.split, aeslc.start, aeslc.stop) == ("validation", -200, None)


def test_a_short_copy_of_a_corpus_is_not_tested_on_what_it_trains_on(tmp_path):
    _write(tmp_path, "true_case", [row_of("true_case", en=f"Row {k}") for k in range(3_100)])
    source = _source(tmp_path, "true_case", template=0)
    texts = {s: {r["targets"] for r in source.records(s)} for s in ("train", "validation", "test")}
    assert [len(texts[split]) for split in texts] == [100, 0, 3_000]
    assert not texts["train"] & texts["test"]


def test_rows_are_capped_before_they_are_filtered(tmp_path):
    rows = [row_of("gigaword", document=f"{'UNK' if k % 2 else 'He'} left.") for k in range(600)]
    _write(tmp_path, "gigaword", rows, "validation")
    records = list(_source(tmp_path, "gigaword", template=0).records("validation"))
    assert len(records) == 100  # Half of the first 200 rows.


def test_text_is_a_function_of_seed_task_and_index(tmp_path):
    _write(tmp_path, "rte", _rows("rte", 260))
    for form in ({}, {"shots": "multi"}, {"shots": "drawn", "options": "styled"}):
        texts = [list(_source(tmp_path, "rte", **form).records("train", seed=s)) for s in (0, 0, 1)]
        assert texts[0] == texts[1] != texts[2]
        parts = [
            list(_source(tmp_path, "rte", **form).records("train", shard_index=k, num_shards=3))
            for k in range(3)
        ]
        assert [parts[i % 3][i // 3] for i in range(60)] == texts[0]
    drawn = {re.sub(r"\d+", "", r["inputs"]) for r in _source(tmp_path, "rte").records("train")}
    assert len(drawn) == 10
    validation = {r["targets"] for r in _source(tmp_path, "rte").records("validation")}
    assert validation == {"yes"}  # Inverted templates have other answers.


@pytest.mark.parametrize("shots", [1, 5, "multi", "drawn"])
def test_exemplars_are_training_examples_and_never_the_query(tmp_path, shots):
    rows = _rows("math_dataset", 40)
    twice = [row for row in rows[:20] for _ in range(2)]  # Each question has two indices.
    _write(tmp_path, "math_dataset", twice + rows[:1] * 200)
    _write(tmp_path, "math_dataset", rows, "test")
    source = _source(tmp_path, "math_dataset", shots=shots, template=-1 if shots == "drawn" else 0)
    counts = set()
    for split, index in (("train", 40), ("test", 40)):
        for k, record in enumerate(source.records(split)):
            numbers = re.findall(r"Number (\d+)", record["inputs"])
            if shots != "drawn":
                *exemplars, query = map(int, numbers)
                assert query not in exemplars and query == (k // 2 if split == "train" else k)
                assert set(exemplars) <= set(range(20))
                counts.add(len(exemplars))
        assert k + 1 == index
    assert shots == "drawn" or counts == ({shots} if shots != "multi" else set(range(1, 17)))


def test_exemplars_are_left_out_where_they_do_not_fit(tmp_path):
    _write(tmp_path, "math_dataset", _rows("math_dataset", 260))
    long = _source(tmp_path, "math_dataset", shots=10, template=0)
    short = _source(tmp_path, "math_dataset", shots=10, template=0, max_characters=40)
    for long_record, short_record in zip(
        long.records("train"), short.records("train"), strict=True
    ):
        long_text = long_record["inputs"]
        short_text = short_record["inputs"]
        assert long_text.count("Number") == 11 and 1 <= short_text.count("Number") <= 3
        assert len(short_text) <= 40
        assert short_text.split("\n\n")[-1] == long_text.split("\n\n")[-1]


def test_rank_classification_twins(tmp_path):
    _write(tmp_path, "rte", _rows("rte", 30), "validation")
    _write(tmp_path, "rte", _rows("rte", 201))
    flan2021.register(str(tmp_path))
    for name, options in (("score_eval", True), ("score_eval_no_options", False)):
        task = seqio.TaskRegistry.get(f"flan2021_rte_{name}")
        assert task.splits == ("validation", "test")
        records = list(task.get_dataset(None, "test", shuffle=False).as_numpy_iterator())
        assert len(records) == 30
        for record in records:
            assert json.loads(record["choices"]) == ["yes", "no"] and record["targets"] == b"yes"
            assert (b"OPTIONS:\n- yes\n- no" in record["inputs"]) == options
    names = [n for n in seqio.TaskRegistry.names() if re.search(r"_rte_type_\d_score_eval$", n)]
    assert len(names) == 8  # Two of the ten templates are inverted.
    [first, *_] = seqio.TaskRegistry.get("flan2021_rte_type_1_score_eval").source.records("test")
    assert first["inputs"].startswith("Text: All doors are red.\nHypothesis: Number 0.\n")


# The published numbers of training examples, after the cap.
SIZES = {
    "rte": 2_290, "cb": 200, "snli": 30_000, "wnli": 605, "copa": 350, "wsc": 504,
    "arc_easy": 2_051, "arc_challenge": 919, "story_cloze": 1_671,
    "definite_pronoun_resolution": 1_122, "opinion_abstracts_idebate": 1_659,
    "opinion_abstracts_rotten_tomatoes": 3_131,
}  # fmt: skip


def test_rates(tmp_path):
    flan2021.register("")
    mixture = seqio.MixtureRegistry.get("flan2021")
    assert len(mixture.tasks) == 69  # wsc273 has no training data.
    counts = {task.name: 30_000 for task in mixture.tasks}
    counts |= {f"flan2021_{name}": size for name, size in SIZES.items()}
    rates = mixing_rates(mixture, mixture.tasks, "train", counts)
    by_name = dict(zip((task.name for task in mixture.tasks), rates, strict=True))
    assert by_name["flan2021_rte"] == 2_290 and by_name["flan2021_cb"] == 200
    assert by_name["flan2021_snli"] == 3_000 and by_name["flan2021_wnli"] == 605
    assert by_name["flan2021_copa"] == 350 and by_name["flan2021_arc_challenge"] == 919
    small = [size for size in SIZES.values() if size < 3_000]
    assert len(small) == 10 and sum(rates) == (69 - 10) * 3_000 + sum(small)
    flan2021.register("")  # Registering twice is no error.


@pytest.mark.parametrize(
    ("cluster", "also"),
    [
        ("sentiment", set()),
        ("entailment", {"paraphrase"}),
        ("paraphrase", {"entailment"}),
        ("common_sense", {"read_comp_and_common_sense"}),
        ("reading_comprehension", {"read_comp_and_common_sense"}),
        ("read_comp_and_common_sense", {"reading_comprehension", "common_sense"}),
    ],
)
def test_a_held_out_cluster_is_never_trained_on(cluster, also):
    flan2021.register("")
    excluded = {cluster, *also}
    for suffix in ("", "_multi_shot"):
        mixture = seqio.MixtureRegistry.get(f"flan2021_without_{cluster}{suffix}")
        trained = {task.source.dataset.cluster for task in mixture.tasks}
        assert trained == set(CLUSTERS) - excluded
    for leak in excluded:
        with pytest.raises(UserError, match=f"'{cluster}' is held out, so '{leak}'.* cannot be"):
            flan2021.register_training_mixture("flan_leak", ["translation", leak], [cluster])
    assert "flan_leak" not in seqio.MixtureRegistry.names()
    with pytest.raises(UserError, match="no cluster 'nli'; it has: summarization"):
        flan2021.register_training_mixture("flan_leak", ["cola"], ["nli"])


def test_missing_and_broken_data_are_named(tmp_path):
    source = _source(tmp_path, "rte")
    message = r"super_glue/rte: the split 'train' is not on this machine; put train.* into .*/rte"
    with pytest.raises(UserError, match=message):
        list(source.records("train"))
    _write(tmp_path, "rte", [{"premise": "a"}], "validation")
    with pytest.raises(UserError, match="rte holds no train.jsonl, .jsonl.gz or .parquet"):
        list(source.records("train"))
    with pytest.raises(UserError, match=r"validation.jsonl:1: not a row of super_glue/rte \(KeyE"):
        list(source.records("test"))
    flan2021.register(str(tmp_path))
    found = seqio.MixtureRegistry.get("flan2021_found")
    assert [task.name for task in found.tasks] == ["flan2021_rte"]


def test_the_fingerprint_sees_data_form_and_templates(tmp_path, monkeypatch):
    _write(tmp_path, "rte", _rows("rte", 201))
    first = _source(tmp_path, "rte").fingerprint("train")
    assert first == _source(tmp_path, "rte").fingerprint("train")
    assert first != _source(tmp_path, "rte", shots=1).fingerprint("train")
    changed = {**prompts.groups(), "rte": prompts.groups()["rte"][::-1]}
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "groups", lambda: changed)
        assert first != _source(tmp_path, "rte").fingerprint("train")
    _write(tmp_path, "rte", _rows("rte", 202))
    assert first != _source(tmp_path, "rte").fingerprint("train")


def _write_tfds(data_dir, name, rows):
    """Write what `tfds build` would: a shard of records, and the metadata."""
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    folder, features = builder.data_path, builder.info.features
    folder.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(
        dataset_name=builder.name, data_dir=folder, split="train", filetype_suffix="tfrecord"
    )
    with tf.io.TFRecordWriter(str(folder / f"{builder.name}-train.tfrecord-00000-of-00001")) as out:
        for row in rows:
            out.write(features.serialize_example(features.encode_example(row)))
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[len(rows)], num_bytes=0, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=[split], check_data=False
    )


def test_tfds_gives_the_same_text_as_a_local_copy(tmp_path):
    rows = [row | {"idx": k} for k, row in enumerate(_rows("rte", 210))]
    (tmp_path / "a").mkdir()
    _write_tfds(tmp_path / "a" / "tensorflow_datasets", "super_glue/rte", rows)
    _write(tmp_path / "b", "rte", rows)
    for form in ({}, {"shots": 3}):
        a, b = (_source(tmp_path / name, "rte", **form) for name in "ab")
        for split, count in (("train", 10), ("validation", 200)):
            records = list(a.records(split, seed=3))
            assert len(records) == a.num_input_examples(split) == count
            assert records == list(b.records(split, seed=3))
        assert a.files("train") == [] and a.fingerprint("train") != b.fingerprint("train")
    with pytest.raises(UserError, match=r"rte/1.0.2: no split 'validation'; it has train"):
        list(a.records("test"))
