"""Tk-Instruct's encodings, the five-way mode, fitting by tokens, tracks and categories."""

import collections
import hashlib
import json

import pytest
import seqio

from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from tasks.natural_instructions import encodings, report
from tasks.natural_instructions import tasks as natural_instructions
from tasks.natural_instructions.prompts import FIVE_WAYS, encoded
from tasks.natural_instructions.source import (
    NaturalInstructionsDataSource,
    NaturalInstructionsOptions,
)
from tests.shared_data import SHARED, requires_shared

pytestmark = pytest.mark.usefixtures("own_registry")

TASK = {
    "Categories": ["Word Analogy"],
    "Definition": ["Add the numbers"],
    "Positive Examples": [
        {"input": "1 2", "output": "3", "explanation": "1 + 2 = 3"},
        {"input": "2 2", "output": "4", "explanation": ""},
    ],
    "Negative Examples": [
        {"input": "-", "output": "-", "explanation": "-"},
        {"input": "7 1", "output": "9", "explanation": "it is 8"},
        {"input": "3 1", "output": "5"},
        {"input": 3},
    ],
    "Instances": [{"input": f"{i} 1", "output": [str(i + 1)]} for i in range(150)],
}
DEFINITION = "Definition: Add the numbers.\n\n"
POSITIVE = (
    " Positive Example 1 -\nInput: 1 2.\n Output: 3.\n\n"
    " Positive Example 2 -\nInput: 2 2.\n Output: 4.\n\n"
)
NEGATIVE = (
    " Negative Example 1 -\nInput: 7 1.\n Output: 9.\n\n"
    " Negative Example 2 -\nInput: 3 1.\n Output: 5.\n\n"
)
EXPLAINED = (
    " Positive Example 1 -\nInput: 1 2.\n Output: 3.\n Explanation: 1 + 2 = 3.\n\n"
    " Positive Example 2 -\nInput: 2 2.\n Output: 4.\n\n"
)
QUESTION = "Now complete the following example -\nInput: 0 1.\nOutput: "
PROMPTS = {
    "definition": DEFINITION + QUESTION,
    "positive2": POSITIVE + QUESTION,
    "definition_positive2": DEFINITION + POSITIVE + QUESTION,
    "definition_positive2_negative2": DEFINITION + POSITIVE + NEGATIVE + QUESTION,
    "definition_positive2_explanations": DEFINITION + EXPLAINED + QUESTION,
}


def _folder(root, tracks, **changes):
    (root / "tasks").mkdir()
    for track, (train, test) in tracks.items():
        folder = root / "splits" / track
        folder.mkdir(parents=True)
        for name, tasks in (("train", train), ("test", test)):
            (folder / f"{name}_tasks.txt").write_text("\n".join(tasks))
            for task in tasks:
                (root / "tasks" / f"{task}.json").write_text(json.dumps(TASK | changes))
    return str(root)


def _source(tmp_path, held_out=False, **options):
    path = tmp_path / "task1.json"
    path.write_text(json.dumps(TASK))
    options = NaturalInstructionsOptions(**options)
    return NaturalInstructionsDataSource(str(path), held_out=held_out, options=options)


@pytest.mark.parametrize("name", PROMPTS)
def test_each_encoding_to_the_letter(tmp_path, name):
    options = encoded(NaturalInstructionsOptions(), name)
    source = _source(tmp_path, held_out=True, **vars(options))
    assert next(source.records("test"))["inputs"] == PROMPTS[name]


def test_five_ways_are_drawn_by_seed_for_training_only(tmp_path):
    assert set(FIVE_WAYS) == set(PROMPTS)
    source = _source(tmp_path, five_way=True)
    kinds = collections.Counter()
    for record in source.records("train", seed=1):
        instance = record["inputs"].split("Now complete")[1]
        heads = {prompt.split("Now complete")[0]: name for name, prompt in PROMPTS.items()}
        kinds[heads[record["inputs"].removesuffix("Now complete" + instance)]] += 1
    assert set(kinds) == set(FIVE_WAYS) and sum(kinds.values()) == 100
    assert all(8 <= count <= 35 for count in kinds.values())
    epochs = [[r["inputs"] for r in source.records("train", seed=seed)] for seed in (1, 2)]
    assert epochs[0] == [r["inputs"] for r in source.records("train", seed=1)] != epochs[1]
    plain = _source(tmp_path)
    assert list(source.records("validation")) == list(plain.records("validation"))
    shards = [
        r for i in range(3) for r in source.records("train", seed=1, shard_index=i, num_shards=3)
    ]
    assert sorted(r["inputs"] for r in shards) == sorted(epochs[0])


@requires_shared
def test_examples_fit_by_the_models_own_tokens(tmp_path):
    tokenizer = SHARED / "data" / "tokenizers" / "t5_sentencepiece.model"
    options = {"tokenizer": str(tokenizer), "negative_examples": 2}
    lengths = []
    for max_tokens in range(20, 160, 10):
        source = _source(tmp_path, held_out=True, max_tokens=max_tokens, **options)
        text = next(source.records("test"))["inputs"]
        assert text.startswith(DEFINITION) and text.endswith(QUESTION)
        tokens = seqio.SentencePieceVocabulary(str(tokenizer)).encode(text)
        shown = text.count(" Example ")
        assert shown == 0 or len(tokens) + 1 <= max_tokens
        lengths.append(shown)
    assert lengths == sorted(lengths) and set(lengths) == {0, 1, 2, 3, 4}
    fingerprints = {
        _source(tmp_path, max_tokens=n, **options).fingerprint("train") for n in (50, 60)
    }
    assert len(fingerprints) == 2


def test_every_encoding_is_registered(tmp_path):
    root = _folder(tmp_path, {"default": (["task1"], ["task2"])})
    encodings.register(root)
    encodings.register(root)
    for name, prompt in PROMPTS.items():
        [heldout] = seqio.MixtureRegistry.get(f"natural_instructions_{name}_heldout").tasks
        assert heldout.splits == ("test",)
        assert next(heldout.source.records("test"))["inputs"] == prompt
    sizes = {
        name: seqio.TaskRegistry.get(f"natural_instructions_{name}_task1").num_input_examples(
            "train"
        )
        for name in ("definition", "five_way", "cap64")
    }
    assert sizes == {"definition": 100, "five_way": 100, "cap64": 64}


def test_the_cross_lingual_track(tmp_path):
    lists = {"default": (["task1"], ["task2"]), "xlingual": (["task1", "task2"], ["task3"])}
    natural_instructions.register(_folder(tmp_path, lists))
    train = seqio.MixtureRegistry.get("natural_instructions_xlingual_train")
    [heldout] = seqio.MixtureRegistry.get("natural_instructions_xlingual_heldout").tasks
    assert {task.name for task in train.tasks} == {
        f"natural_instructions_xlingual_task{i}" for i in (1, 2)
    }
    assert heldout.name == "natural_instructions_xlingual_task3"
    assert "rouge_l_xlingual" in [fn.__name__ for fn in heldout.metric_fns]
    # The default track is unaffected, and its held-out task still cannot be trained on.
    [default] = seqio.MixtureRegistry.get("natural_instructions_heldout").tasks
    assert default.name == "natural_instructions_task2"
    with pytest.raises(UserError, match="has the split 'train'"):
        seqio_registry.tasks_of(default, "train", "data.mixture")


def test_a_track_whose_lists_overlap_is_an_error(tmp_path):
    lists = {"default": (["task1"], ["task2"]), "xlingual": (["task3"], ["task3"])}
    with pytest.raises(UserError, match="splits/xlingual: task3 is in train_tasks.txt and in"):
        natural_instructions.register(_folder(tmp_path, lists))


def test_categories_of_registered_tasks(tmp_path):
    natural_instructions.register(_folder(tmp_path, {"default": (["task1"], ["task2"])}))
    found = natural_instructions.categories()
    assert {k: tuple(v) for k, v in found.items()} == {
        f"natural_instructions_task{i}": ("Word Analogy", "exact_match_normalized") for i in (1, 2)
    }
    assert list(natural_instructions.categories(["natural_instructions_task2"])) == [
        "natural_instructions_task2"
    ]


def test_a_runs_scores_by_category(tmp_path, capsys):
    root = _folder(tmp_path, {"default": (["task1"], ["task2"])})
    scores = {"examples": 100, "exact_match_normalized": 0.25, "rouge_l": 0.5}
    names = ("natural_instructions_definition_task2_5_shot", "another")
    evaluation = {"heldout": {"tasks": dict.fromkeys(names, scores), "overall": {}}}
    workdir = tmp_path / "run"
    workdir.mkdir()
    config = {"data": {"modules": ["tasks.natural_instructions.encodings"], "root": root}}
    (workdir / "config.json").write_text(json.dumps(config))
    assert report.main([str(workdir)]) == 2
    assert "run writes when it ends" in capsys.readouterr().err
    (workdir / "evaluation.json").write_text(json.dumps(evaluation))
    assert report.main([str(workdir)]) == 0
    assert capsys.readouterr().out == (
        "heldout\n"
        "  category      tasks  examples   score  metric\n"
        "  Word Analogy      1       100   25.00  exact_match_normalized\n"
        "  overall           1       100   50.00  rouge_l\n"
    )


@requires_shared
def test_real_files_under_every_encoding():
    root = str(SHARED / "data" / "natural_instructions")
    natural_instructions.register(root)
    encodings.register(root)
    found = natural_instructions.categories()
    assert found["natural_instructions_task828_copa_commonsense_cause_effect"].headline == (
        "exact_match_normalized"
    )
    assert found["natural_instructions_task957_e2e_nlg_text_generation_generate"].headline == (
        "rouge_l"
    )
    heldout = seqio.MixtureRegistry.get("natural_instructions_five_way_heldout")
    assert len(heldout.tasks) == 8
    mixture = "natural_instructions_definition_positive2_negative2_train"
    negative = sum(
        "Negative Example 1 -" in next(task.source.records("train"))["inputs"]
        for task in seqio.MixtureRegistry.get(mixture).tasks
    )
    assert negative > 10


@requires_shared
def test_the_default_prompts_are_what_they_always_were():
    # A digest by the first version of this source: definition, two positive examples, 4,000
    # characters.
    root = SHARED / "data" / "natural_instructions"
    digest = hashlib.sha256()
    for name in (
        "tasks/task828_copa_commonsense_cause_effect",
        "tasks/task1590_diplomacy_text_generation",
    ):
        for held_out in (False, True):
            source = NaturalInstructionsDataSource(str(root / f"{name}.json"), held_out=held_out)
            for split in source.splits:
                for record in source.records(split, seed=5):
                    digest.update(json.dumps(record, sort_keys=True).encode())
    assert digest.hexdigest() == "5e528ad552d192a108ae57c9575305b2f0c4b9b5ff7b8dab424dd2f76993236a"
