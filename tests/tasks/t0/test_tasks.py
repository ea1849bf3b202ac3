"""T0: tasks, lists, caps, mixtures, held-out tasks, and rows."""

import json
import logging
import sys

import pytest
import seqio

from ift_jax.config import files as config_file
from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.prepare import prepare
from tasks.t0 import tasks as t0
from tasks.t0.datasets import DATASETS
from tasks.t0.promptsource import Template
from tasks.t0.rows import PromptedSource
from tests.shared_data import SHARED, requires_shared

pytestmark = pytest.mark.usefixtures("own_registry")


def _yaml(templates):
    lines = ["templates:"]
    for i, (name, jinja, choices, original) in enumerate(templates):
        lines += [
            f"  {i}: !Template",
            f"    name: {json.dumps(name)}",
            f"    id: {i}",
            f"    jinja: {json.dumps(jinja)}",
            f"    answer_choices: {json.dumps(choices)}",
            "    metadata: !TemplateMetadata",
            f"      original_task: {json.dumps(original)}",
            "      metrics: [Accuracy]",
        ]
    return "\n".join(lines) + "\n"


ASK = ("ask it", "{{text}}? ||| {{answer_choices[label]}}", "no ||| yes", True)
TELL = ("tell it", "Write. ||| {{text}}", None, False)


def _folder(tmp_path, templates, rows=()):
    for dataset, given in templates.items():
        folder = tmp_path / dataset
        folder.mkdir(parents=True)
        (folder / "templates.yaml").write_text(_yaml(given))
    for place, given in dict(rows).items():
        (tmp_path / place).write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(tmp_path)


ROWS = [{"text": f"t{i}", "label": (i % 3) - 1} for i in range(6)]


def _made(tmp_path):
    return _folder(
        tmp_path,
        {
            "ag_news": [ASK],
            "imdb": [ASK, TELL],
            "gigaword": [TELL, ("summarize ", "x ||| {{text}}", None, True)],
            "hellaswag": [ASK],
            "super_glue/copa": [ASK],
            "super_glue/rte": [ASK, TELL],
            "anli": [ASK],
            "wino_bias/type1_pro": [ASK],
        },
        {
            "imdb/train.jsonl": ROWS,
            "imdb/test.jsonl": ROWS,
            "super_glue/rte/validation.jsonl": ROWS,
        },
    )


def _names(mixture):
    return {task.name for task in seqio.MixtureRegistry.get(mixture).tasks}


def test_names_mixtures_and_rates(tmp_path, caplog):
    root = _made(tmp_path)
    with caplog.at_level(logging.WARNING):
        t0.register(root)
    assert "no templates for 58 of its datasets" in caplog.text
    imdb = {"imdb_ask_it", "imdb_tell_it"}
    base = imdb | {"ag_news_ask_it"}
    assert _names("t0_train") == base | {"gigaword_tell_it"}  # T0 leaves out summarize_.
    assert _names("t0+_train") == _names("t0_train") | {"hellaswag_ask_it"}
    assert _names("t0++_train") == _names("t0+_train") | {"super_glue_copa_ask_it"}
    asked = {"ag_news_ask_it", "imdb_ask_it"}
    assert _names("t0_train_all_og_prompts") == _names("t0_train_one_og_prompt") == asked
    assert _names("t0_train_score_eval") == {"ag_news_ask_it_score_eval"}  # T0 skips IMDB.
    nli = {"super_glue_rte_ask_it"} | {f"anli_ask_it_r{i}" for i in (1, 2, 3)}
    stages = [nli, nli | {"super_glue_copa_ask_it"}]
    stages.append(stages[1] | {"hellaswag_ask_it"})
    for mixture, held_out in zip(("t0++", "t0+", "t0"), stages, strict=True):
        assert _names(f"{mixture}_eval_score_eval") == {f"{name}_score_eval" for name in held_out}
    assert _names("bias_fairness_eval_score_eval") == {"wino_bias_type1_pro_ask_it_score_eval"}
    train = seqio.MixtureRegistry.get("t0_train")
    rates = {task.name: train.get_rate(task) for task in train.tasks}
    assert rates == {
        "ag_news_ask_it": 120_000,
        "imdb_ask_it": 25_000,
        "imdb_tell_it": 25_000,
        "gigaword_tell_it": 250_000,
    }
    t0.register(root)  # Registering twice is no error.


def test_caps_against_the_published_totals():
    # The rate of a data set is that of all its templates. Sizes and numbers are the published ones.
    assert t0.cap(287_113, 9) * 9 == 2_584_017  # cnn_dailymail: about 2.58 million.
    assert t0.cap(363_846, 6) * 6 == 2_183_076  # qqp
    assert t0.cap(204_045, 10) * 10 == 2_040_450  # xsum
    assert t0.cap(3_803_957, 9) * 9 == 499_995  # gigaword: 500,000, although ten times larger.
    assert t0.cap(500_000, 7) == 500_000 and t0.cap(500_001, 7) == 71_428


def test_the_published_lists():
    stages = [d.train for d in DATASETS]
    assert [stages.count(stage) for stage in ("BASE", "GPT_EVAL", "SGLUE")] == [38, 10, 6]
    held_out = t0.held_out("t0_train")
    assert set(held_out) == {
        "anli",
        "super_glue/cb",
        "super_glue/rte",
        "super_glue/wsc.fixed",
        "super_glue/copa",
        "super_glue/wic",
        "winogrande/winogrande_xl",
        "hellaswag",
        "story_cloze/2016",
    }
    assert set(t0.held_out("t0+_train")) == set(held_out) - {"hellaswag"}
    assert set(t0.held_out("t0++_train")) == {
        name for name, why in held_out.items() if why == "evaluation only"
    }
    with pytest.raises(UserError, match="expected one of t0_train"):
        t0.held_out("t1_train")


# The names that T0 looks for in the names of tasks, and the tasks that it names, so as not to score
# them (`t0/seqio_tasks/tasks.py` of its repository).
SKIPPED = """paws_labeled_final adversarial_qa_dbidaf adversarial_qa_dbert duorc_ParaphraseRC dream
amazon_polarity app_reviews imdb wiki_bio gigaword multi_news samsum dbpedia_14 trec"""
UNCACHED = [f"affirmative_{k}" for k in (1, 2, 3)] + [f"interrogative_{k}" for k in (1, 2)]


def test_t0_scores_the_published_part_of_what_it_trains_on(tmp_path):
    trained = [d for d in DATASETS if d.train == "BASE" and len(d.usable_splits) > 1]
    hop = [(f"choose_best_object_{kind}", *ASK[1:]) for kind in (*UNCACHED, "affirmative_4")]
    templates = {d.full_name: [ASK] for d in trained} | {"wiki_hop/original": hop}
    t0.register(_folder(tmp_path, templates))
    trained_names = _names("t0_train_all_og_prompts")
    uncached = {f"wiki_hop_original_choose_best_object_{kind}" for kind in UNCACHED}
    assert uncached < trained_names
    expected = {
        f"{name}_score_eval"
        for name in trained_names - uncached
        if not any(skipped in name for skipped in SKIPPED.split())
    }
    assert _names("t0_train_score_eval") == expected and len(expected) == 24


def test_held_out_tasks_cannot_be_trained_on(tmp_path):
    t0.register(_made(tmp_path))
    for mixture in ("t0_eval_score_eval", "t0++_eval_score_eval", "bias_fairness_eval_score_eval"):
        provider = seqio.MixtureRegistry.get(mixture)
        assert not any("train" in task.splits for task in provider.tasks)
        with pytest.raises(UserError, match="has the split 'train'"):
            seqio_registry.tasks_of(provider, "train", "data.mixture")
    for name in ("super_glue_rte_tell_it", "anli_ask_it_r2"):  # No stage trains on them.
        assert "train" not in seqio.TaskRegistry.get(name).splits
    for model in ("t0", "t0+", "t0++"):
        trained = {name.rpartition("_ask")[0] for name in _names(f"{model}_train")}
        held_out = {name.rpartition("_ask")[0] for name in _names(f"{model}_eval_score_eval")}
        assert held_out and not trained & held_out


def test_records_of_a_task_and_of_its_twin(tmp_path):
    t0.register(_made(tmp_path))
    task = seqio.TaskRegistry.get("imdb_ask_it")
    assert task.splits == ("train", "test") and task.num_input_examples("train") == 6
    records = list(task.source.records("train"))
    assert [r["inputs"] for r in records] == [
        "t1?",
        "t2?",
        "t4?",
        "t5?",
    ]  # The label -1 means none.
    assert records[0] == {"inputs": "t1?", "targets": "no", "references": '["no"]'}
    assert list(task.get_dataset(None, split="train", shuffle=False).as_numpy_iterator())
    twin = seqio.TaskRegistry.get("imdb_ask_it_score_eval")
    assert twin.splits == ("test",)
    [first, *_] = twin.source.records("test")
    assert first == records[0] | {"choices": '["no", "yes"]'}
    sharded = [list(task.source.records("train", shard_index=i, num_shards=4)) for i in range(4)]
    assert [len(shard) for shard in sharded] == [1, 2, 1, 0]


def test_anli_rounds_read_their_own_splits(tmp_path):
    rows = {f"anli/dev_r{i}.jsonl": [{"text": f"round {i}", "label": 1}] for i in (1, 2, 3)}
    t0.register(_folder(tmp_path, {"anli": [ASK]}, rows))
    for i in (1, 2, 3):
        source = seqio.TaskRegistry.get(f"anli_ask_it_r{i}_score_eval").source
        assert [r["inputs"] for r in source.records("validation")] == [f"round {i}?"]


def test_draws_follow_seed_and_row():
    template = Template("t", "{{ ['a', 'b', 'c'] | choice }} {{n}} ||| x")

    source = PromptedSource("", "d", "", template, {"train": "train"})
    items = [("row", {"n": n}) for n in range(20)]

    def texts(seed):
        return [source.render(item, "train", i, seed)["inputs"] for i, item in enumerate(items)]

    assert texts(1) == texts(1) != texts(2)


def test_errors_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # As if it were not installed.
    root = _made(tmp_path)
    t0.register(root)
    with pytest.raises(UserError) as caught:
        next(seqio.TaskRegistry.get("gigaword_tell_it").source.records("train"))
    assert "gigaword: the split 'train' is not on this machine; put train.jsonl" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    (tmp_path / "imdb/train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"train.jsonl:1: template 'ask it': it reads 'label'"):
        list(seqio.TaskRegistry.get("imdb_ask_it").source.records("train"))
    (tmp_path / "imdb/train.jsonl").write_text('{"text": "a", "label": 7}\n{"text": \n')
    source = seqio.TaskRegistry.get("imdb_ask_it").source
    with pytest.raises(UserError, match=r"train.jsonl:2: column 10: .*expected one JSON object"):
        list(source.records("train"))
    with pytest.raises(UserError, match="no promptsource templates"):
        t0.register(str(tmp_path / "nowhere"))


@requires_shared
def test_a_mixture_becomes_token_stores(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    model = SHARED / "data" / "tokenizers" / "t5_sentencepiece.model"
    templates = {"ag_news": [ASK, TELL], "super_glue/rte": [ASK]}
    rows = {f"ag_news/{split}.jsonl": ROWS for split in ("train", "test")}
    config = config_file.load(
        "configs/t0.py:3b",
        [
            f"--config.data.root={_folder(folder, templates, rows)}",
            f"--config.data.store_dir={tmp_path / 'stores'}",
            f"--config.tokenizer.path={model}",
            "--config.data.mixture=t0_train_all_og_prompts",
            "--config.data.eval_mixture=t0_train_score_eval",
            "--config.data.eval_split=test",
        ],
    )
    prepared = prepare(config, log=lambda line: None)
    tokenizer = prepared.tokenizer
    [store] = prepared.mixture.stores
    assert prepared.mixture.tasks == ["ag_news_ask_it"] and len(store) == 4
    assert tokenizer.decode(store.encoder_tokens(0)) == "t1?"
    assert tokenizer.eos_id not in store.encoder_tokens(0).tolist()  # T0 has no EOS in the inputs.
    assert store.tokens(0).tolist()[-1] == tokenizer.eos_id
    twin = prepare(config, "eval", log=lambda line: None).mixture
    assert [list(twin.stores[0].references(i)) for i in range(4)] == [["no"], ["yes"]] * 2


@requires_shared
def test_real_templates_give_what_p3_holds():
    t0.register(str(SHARED / "data" / "promptsource"))
    rendered = SHARED / "data" / "t0"
    for name in ("common_gen_Put_together", "common_gen_Given_concepts_type_1"):
        source = seqio.TaskRegistry.get(name).source
        for line in (rendered / f"{name}.jsonl").read_text().splitlines():
            p3 = json.loads(line)
            inputs = p3["prompt"].strip()
            target = p3["completion"].removesuffix("<|endoftext|>").strip()
            listed = inputs.split(": ")[1].split("\n")[0].rstrip(".; ")
            row = {"concepts": listed.split(", "), "target": target}
            record = source.render(("row", row), "train", 0, 0)
            assert (record["inputs"], record["targets"]) == (inputs, target)
    assert len(_names("t0_train")) == 80
    xsum = [t for t in _names("t0_train") if t.startswith("xsum_")]
    mixture = seqio.MixtureRegistry.get("t0_train")
    rates = [mixture.get_rate(seqio.TaskRegistry.get(name)) for name in xsum]
    assert rates == [204_045] * 10
    # A commonsense question through the real templates of cos_e.
    row = {"question": "What is wet?", "choices": ["water", "sand"], "answer": "water"}
    source = seqio.TaskRegistry.get("cos_e_v1.11_question_option_description_text").source
    record = source.render(("row", row), "train", 0, 0)
    assert record["targets"] == "water" and "- water" in record["inputs"]


@requires_shared
@pytest.mark.parametrize(
    ("task", "row", "target"),
    [
        (
            "super_glue_rte_does_it_follow_that",
            {"premise": "It rains.", "hypothesis": "It is wet.", "label": 0},
            "Yes",
        ),
        (
            "super_glue_wic_same_sense",
            {"word": "bank", "sentence1": "a", "sentence2": "b", "label": 1},
            "Yes",
        ),
    ],
)
def test_real_held_out_templates_rank_their_answers(task, row, target):
    t0.register(str(SHARED / "data" / "promptsource"))
    source = seqio.TaskRegistry.get(f"{task}_score_eval").source
    record = source.render(("row", row), "validation", 0, 0)
    assert record["targets"] == target and target in json.loads(record["choices"])
