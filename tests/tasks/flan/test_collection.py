"""The Flan Collection: shares, caps, option styles, chains of thought, dialogue, exemplars."""

import collections
import itertools
import json
import re

import pytest
import seqio

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.mixing_rates import mixing_rates
from tasks.flan import collection, layouts, option_styles, prompts
from tasks.flan.collection_rows import qrecc, wiki_dialog
from tasks.flan.datasets import DATASETS
from tests.shared_data import SHARED, requires_shared

pytestmark = pytest.mark.usefixtures("own_registry")


NI = {
    "Definition": ["Add one."],
    "Positive Examples": [{"input": str(k), "output": str(k + 1)} for k in (7, 8, 9)],
    "Negative Examples": [],
    "Instances": [{"id": str(k), "input": str(k), "output": [str(k + 1)]} for k in range(7, 30)],
}


@pytest.fixture
def root(tmp_path):
    """A data root with a few examples of each submixture."""
    (tmp_path / "cot").mkdir()
    lines = [f"Is {k} odd?\\nOptions:\\n- yes\\n- no\tyes\t{k} is odd" for k in range(1, 160, 2)]
    (tmp_path / "cot" / "creak_train.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "niv2" / "tasks").mkdir(parents=True)
    for name in ("task9_add", "task685_mmmlu", "task737_mmmlu"):
        (tmp_path / "niv2" / "tasks" / f"{name}.json").write_text(json.dumps(NI))
    (tmp_path / "t0").mkdir()
    rows = [{"inputs": f"P{k}", "targets": "b", "options": ["a", "b"]} for k in range(9)]
    for name in ("qasc_is_it", "glue_mrpc_same", "trec_which"):
        (tmp_path / "t0" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "glue" / "cola").mkdir(parents=True)
    rows = [{"sentence": f"S{k}.", "label": k % 2} for k in range(400)]
    (tmp_path / "glue" / "cola" / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "wiki_dialog" / "OQ").mkdir(parents=True)
    rows = [{"title": "Tea", "utterances": [f"Q{k}?", "A."]} for k in range(20)]
    for split in ("train", "validation"):
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / "wiki_dialog" / "OQ" / f"{split}.jsonl").write_text(text)
    return str(tmp_path)


def _source_records(name, split="train", seed=0):
    return seqio.TaskRegistry.get(f"flan_collection_{name}").source.records(split, seed=seed)


def _records(name, split="train", seed=0):
    return list(_source_records(name, split, seed))


def _shares(name, counts=None):
    mixture = seqio.MixtureRegistry.get(name)
    tasks = seqio_registry.tasks_of(mixture, "train", "data.mixture")
    by_name = {task.name: counts(task) for task in tasks} if counts else {}
    rates = mixing_rates(mixture, tasks, "train", by_name)
    total = sum(rates)
    return {task.name: rate / total for task, rate in zip(tasks, rates, strict=True)}


def _grouped(shares, pattern):
    groups = collections.Counter()
    for name, share in shares.items():
        groups[re.search(pattern, name)[1]] += share
    return groups


def test_shares_are_the_published_ones(root):
    collection.register(root)
    collection.register(root)  # Registering twice is no error.
    for name in ("flan_collection", "flan_collection_found"):
        shares = _shares(name, lambda task: 1000)
        by_part = _grouped(shares, r"flan_collection_([a-z0-9]+)_")
        assert by_part == pytest.approx(
            {"flan2021": 0.40, "t0": 0.32, "niv2": 0.20, "cot": 0.05, "dialog": 0.03}
        )
        forms = {k: v for k, v in shares.items() if "_cola_" in k or "_t0_qasc_" in k}
        one = _grouped(forms, r"_((?:zs|fs)_\w+)$")
        assert len(one) == 4 and len({round(share, 9) for share in one.values()}) == 1
        for part in ("cot", "dialog"):
            inside = {k: v for k, v in shares.items() if f"_{part}_" in k}
            turned = sum(v for k, v in inside.items() if "_inverted_" in k)
            assert turned / (sum(inside.values()) - turned) == pytest.approx(0.3)
        few = sum(share for k, share in shares.items() if "_fs_" in k)
        assert few == pytest.approx(0.5)


def test_rates_in_a_submixture_are_capped_sizes():
    collection.register("")
    published = {"gsm8k": 7_473, "esnli": 36_174, "creak": 6_915, "qed": 5_154}

    def count(task):
        return published.get(task.source.dataset.name, 150_000)

    rates = _shares("flan_collection_cot_zs_opt_forward", count)
    total = 7_473 + 36_174 + 6_915 + 5_154 + 5 * 100_000
    assert rates["flan_collection_cot_gsm8k_zs_opt"] == pytest.approx(7_473 / total)
    assert rates["flan_collection_cot_aqua_zs_opt"] == pytest.approx(100_000 / total)
    dialog = _shares("flan_collection_dialog_zs_opt_forward", lambda task: 10**7)
    assert set(dialog.values()) == {0.5}
    flan = _shares(
        "flan_collection_flan2021_zs_opt",
        lambda task: 2_290 if task.source.dataset.name == "rte" else 30_000,
    )
    assert flan["flan_collection_flan2021_rte_zs_opt"] == pytest.approx(
        2_290 / (2_290 + 68 * 30_000)
    )


def test_tasks_that_flan_is_tested_on_or_has_already_are_left_out(root):
    collection.register(root)
    names = [task.name for task in seqio.MixtureRegistry.get("flan_collection_found").tasks]
    assert any("task9_add" in name for name in names)
    assert not any("mmmlu" in name for name in names)  # Flan models are tested on MMLU.
    parts = {re.search(r"flan_collection_t0_(\w+?)_(zs|fs)", n)[1] for n in names if "_t0_" in n}
    assert parts == {"qasc_is_it"}  # FLAN 2021 has the data sets of the others.
    assert collection.in_flan("super_glue_copa_x") and not collection.in_flan("dreams_x")


def test_option_styles():
    assert len(option_styles.HEADERS) == len(set(option_styles.HEADERS)) == 16
    assert len(option_styles.LISTS) == len(set(option_styles.LISTS)) == 90
    assert len(option_styles.ENDINGS) == 3
    options = ["red", "blue"]
    for marks, wrap, separator in option_styles.LISTS:
        style = option_styles.OptionStyle("H", marks, wrap, separator)
        block, answer = style.block(options), style.answer(options, "blue")
        assert answer == "blue" if not marks else answer in block and answer != "blue"
        assert answer == answer.strip(" :.")
    style = option_styles.OptionStyle("", "i", "{})", "; ")
    assert style.block(list("abcd")) == "i) a; ii) b; iii) c; iv) d"
    assert style.answer(list("abcd"), "d") == "iv"
    many = [str(k) for k in range(30)]
    assert option_styles.OptionStyle("", "A", "{}.").answer(many, "29") == "30"
    drawn = [option_styles.draw_style(Draws("x", k)) for k in range(400)]
    assert 150 < sum(style == option_styles.PLAIN for style in drawn) < 250
    assert drawn == [option_styles.draw_style(Draws("x", k)) for k in range(400)]


def test_the_data_sets_of_flan_2021_are_read_as_there():
    trained = [d for d in DATASETS.values() if "train" in d.splits]
    assert collection.submixtures("")["flan2021"] == trained and len(trained) == 69
    [story] = [d for d in trained if d.name == "story_cloze"]
    row = {"context": "Tom was hungry.", "endings": ["He ate.", "He flew."]}
    answers = [next(iter(story.read(row | {"label": label})))["answer"] for label in (1, 2)]
    assert answers == ["He ate.", "He flew."]


def test_options_are_shown_or_hidden(root):
    collection.register(root)
    shown, hidden = _records("flan2021_cola_zs_opt"), _records("flan2021_cola_zs_noopt")
    for a, b in zip(shown, hidden, strict=True):
        assert b["targets"] in ("acceptable", "unacceptable") or b["targets"].startswith("S")
        if not b["targets"].startswith("S"):
            assert a["inputs"].count("acceptable") > b["inputs"].count("acceptable")
    assert {r["targets"] for r in shown} > {
        "acceptable",
        "unacceptable",
    }  # Some answers are letters.
    assert shown != _records("flan2021_cola_zs_opt", seed=1)
    assert shown == _records("flan2021_cola_zs_opt")
    [first, *_] = _records("t0_qasc_is_it_zs_noopt")
    assert first == {"inputs": "P0", "targets": "b"}


def test_a_t0_prompt_whose_answer_is_none_of_its_options_is_named(tmp_path):
    (tmp_path / "t0").mkdir()
    rows = [{"inputs": f"P{k}", "targets": "b", "options": ["a ", " b"]} for k in range(40)]
    path = tmp_path / "t0" / "qasc_is_it.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, rows[0] | {"targets": "c"}])))
    collection.register(str(tmp_path))
    records = _source_records("t0_qasc_is_it_zs_opt")
    assert {next(records)["targets"] for _ in rows} > {"b"}  # Some answer by a mark.
    with pytest.raises(UserError, match=r"is_it.jsonl:41: .* the answer 'c' is none of the opti"):
        next(records)


def test_few_shot_prompts(root):
    collection.register(root)
    numbers = {}
    for form in ("fs_opt", "fs_noopt"):
        numbers[form] = collections.Counter()
        for k, record in enumerate(_records(f"flan2021_cola_{form}")):
            text = record["inputs"] + record["targets"]
            found = list(map(int, re.findall(r"\bS(\d+)\.", text)))
            assert len(found) == len(set(found)) and found.count(k) == 1
            numbers[form][len(found) - 1] += 1
    # With options, half of the prompts have five exemplars with mixed templates; all others have
    # those of 25 that share the query's template.
    assert min(numbers["fs_opt"]) == 1 and 80 < numbers["fs_opt"][5] < 140
    assert min(numbers["fs_noopt"]) == 1 and numbers["fs_noopt"][5] < 40
    assert 2 < _mean(numbers["fs_noopt"]) < 3
    for record in _records("niv2_task9_add_fs_opt"):
        assert record["inputs"].count("Add one.") == 3  # Two exemplars and the query.
        *exemplars, query = re.findall(r"\b\d+\b", record["inputs"])
        assert query not in exemplars[::2] and len(exemplars) == 4
    source = seqio.TaskRegistry.get("flan_collection_niv2_task9_add_fs_opt").source
    item = next(iter(source.items("train")))
    text = prompts.fill(prompts.groups()["niv2"][1], item, None)
    assert text == ("Add one.\nInput: 7\nOutput:", "8")
    layout = layouts.LAYOUTS[6]
    assert layout.prompt([("Add one.\n\n8", "9")], "Add one.\n\n7") == (
        "User: Add one.\n\n8\nAssistant: 9\n\nUser: Add one.\n\n7\nAssistant:"
    )


def test_an_exemplar_never_asks_what_the_query_asks(root, tmp_path):
    # Every question occurs several times, with different explanations.
    lines = [f"Q{k % 8}?\tyes\tReason {k}." for k in range(90)]
    (tmp_path / "cot" / "creak_train.tsv").write_text("\n".join(lines) + "\n")
    collection.register(root)
    seen = 0
    for task in ("cot_creak_fs_opt", "cot_creak_inverted_fs_opt"):
        for k, record in enumerate(_records(task)):
            text = record["inputs"] + record["targets"]
            reasons = {int(n) % 8 for n in re.findall(r"Reason (\d+)", text)}
            questions = [int(n) for n in re.findall(r"Q(\d+)\?", text)]
            assert questions.count(k % 8) <= 1
            seen += len(reasons | set(questions)) > 1
    assert seen > 60


def _mean(counter):
    return sum(k * n for k, n in counter.items()) / sum(counter.values())


def test_chains_of_thought_to_the_letter(root):
    collection.register(root)
    forward = {r["targets"] for r in _records("cot_creak_zs_opt") if "Is 1 odd?" in r["inputs"]}
    assert len(forward) == 1
    source = seqio.TaskRegistry.get("flan_collection_cot_creak_zs_opt").source
    item = next(iter(source.items("train")))
    group = prompts.groups()["cot"]
    assert prompts.fill(group[0], item, None) == (
        "Is 1 odd?\nOptions:\n- yes\n- no\n\nThink first, then answer.",
        "1 is odd. The answer is yes.",
    )
    turned = prompts.groups()["cot_inverted"]
    assert prompts.fill(turned[0], item, None) == (
        "Reasoning: 1 is odd.\nAnswer: yes\n\nWhat was the question?",
        "Is 1 odd?\nOptions:\n- yes\n- no",
    )
    assert all(t.inverted for t in turned) and len(turned) == len(group) == 10
    assert len(_records("cot_creak_zs_opt")) == 30  # The last 50 of 80 are for validation.
    assert len(_records("cot_creak_inverted_fs_opt", "validation")) == 50


def test_dialogue():
    [tea] = wiki_dialog({"title": "Tea", "utterances": ["Is it\nhot?", "Yes.", "Why?", "Heat."]})
    assert tea == {
        "dialog": "A: Is it hot?\nB: Yes.\nA: Why?",
        "response": "B: Heat.",
        "topic": "Tea",
    }
    group = prompts.groups()["dialog"]
    assert prompts.fill(group[1], tea, None) == (
        "Continue this conversation by one turn.\n\nA: Is it hot?\nB: Yes.\nA: Why?",
        "B: Heat.",
    )
    [plain] = qrecc({"context": [], "question": "Why?", "answer": "Heat."})
    for name in ("dialog", "dialog_inverted"):
        fitting = [t for t in prompts.groups()[name] if t.needs <= plain.keys()]
        assert len(prompts.groups()[name]) == 10 and len(fitting) >= 4


def test_missing_data_is_named(tmp_path):
    collection.register("")
    for task, message in (
        ("cot_qed_zs_opt", r"cot/qed_train.tsv: does not exist; get it from flan/v2/cot_data of"),
        ("niv2_missing_fs_opt", r"<data.root>/niv2/tasks: does not exist; get it from tasks/ of"),
        ("t0_missing_zs_noopt", r"<data.root>/t0/\*.jsonl: does not exist"),
        (
            "dialog_wiki_dialog_zs_opt",
            r"wiki_dialog/OQ: the split 'train' is not on this machine; put train.jsonl .* into "
            r"<data.root>/wiki_dialog/OQ, or prepare it: tfds.load",
        ),
    ):
        with pytest.raises(UserError, match=message):
            _records(task)
    (tmp_path / "cot").mkdir()
    (tmp_path / "cot" / "qed_train.tsv").write_text("a\tb\tc\n" * 60 + "a\tb\n")
    collection.register("")
    for name in [n for n in seqio.TaskRegistry.names() if n.startswith("flan")]:
        seqio.TaskRegistry.remove(name)
    for name in [n for n in seqio.MixtureRegistry.names() if n.startswith("flan")]:
        seqio.MixtureRegistry.remove(name)
    collection.register(str(tmp_path))
    with pytest.raises(UserError, match=r"qed_train.tsv:61: 2 columns; expected question, answer"):
        _records("cot_qed_zs_opt", "validation")


@requires_shared
def test_real_chains_of_thought():
    root = SHARED / "data" / "flan"
    collection.register(str(root))
    found = seqio.MixtureRegistry.get("flan_collection_cot_found")
    names = {task.source.dataset.name.removesuffix("_inverted") for task in found.tasks}
    assert names == set(collection.COT) - {"esnli", "qed"}
    for task in found.tasks:
        assert task.source.num_input_examples("train") == 100
        for record in itertools.islice(task.source.records("train"), 20):
            assert record["inputs"] and record["targets"]
            assert "\\n" not in record["inputs"] + record["targets"]
            assert "\t" not in record["inputs"]
    # Through SeqIO, one of the nested mixtures is enough: a pipeline for every task takes seconds.
    nested = seqio.MixtureRegistry.get("flan_collection_cot_found_zs_opt")
    dataset = nested.get_dataset(None, split="train", shuffle=False, num_epochs=1)
    assert set(next(dataset.as_numpy_iterator())) == {"inputs", "targets"}
