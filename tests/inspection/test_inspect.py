"""`ift inspect` shows what is here of every system; of the rest, what is missing and from where."""

import itertools
import os
import re
import subprocess
import sys

import pytest
import seqio

import tasks
from ift_jax.commands import main
from ift_jax.preparation import seqio_registry
from tasks import tulu
from tasks.flan.datasets import DATASETS
from tests.sources.dataset_files import TEMPLATES, write
from tests.tasks.flan.flan_rows import row_of
from tests.training.runs import REPO

CLASSIFIED = {
    **dict.fromkeys(("sentence", "sentence1", "sentence2", "premise", "hypothesis"), "It rained."),
    **dict.fromkeys(("question", "question1", "question2"), "Did it rain?"),
    "label": 1,
}
TURNS = [{"role": "user", "content": "How much is it?"}, {"role": "assistant", "content": "Five."}]
INSTRUCTED = {"instruction": "Name a colour.", "input": "", "output": "Red"}
TREE = {"text": "Why?", "role": "prompter", "lang": "en", "replies": [
    {"text": "Because.", "role": "assistant", "lang": "en", "replies": []}]}  # fmt: skip


def _gsm8k(root):
    rows = [
        {"question": f"{i} and 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(60)
    ]
    for split in ("train", "test"):
        write(root / "gsm8k" / f"{split}.jsonl", rows)


def _alpaca(root):
    write(root / "alpaca_data.json", [INSTRUCTED] * 200)


def _dolly(root):
    row = {"instruction": "Why?", "context": "", "response": "So.", "category": "open_qa"}
    write(root / "databricks-dolly-15k.jsonl", [row] * 200)


def _lima(root):
    write(root / "lima" / "train.jsonl", [{"conversations": ["Hi", "Hello"], "source": "x"}] * 40)


def _self_instruct(root):
    seed = {"instruction": "Shorten.", "instances": [{"input": "a long text", "output": "short"}]}
    write(root / "seed_tasks.jsonl", [seed] * 40)
    write(root / "all_instances_82K.jsonl", [INSTRUCTED] * 200)
    write(root / "user_oriented_instructions.jsonl", [seed] * 5)


def _open_assistant(root):
    trees = [{"message_tree_id": str(i), "prompt": TREE} for i in range(40)]
    write(root / "2023_oasst_ready.trees.jsonl.gz", trees)


def _sharegpt(root):
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    write(root / "talks.json", [{"conversations": turns}] * 40)


def _instructgpt(root):
    for split in ("train", "validation"):
        write(
            root / "instructgpt" / f"{split}.jsonl", [{"prompt": "Say a.", "completion": "a"}] * 9
        )


def _tulu(root):
    for release, folder in (("tulu2", "tulu-v2-sft-mixture"), ("tulu3", "tulu-3-sft-mixture")):
        _, column, sources, _ = tulu.RELEASES[release]
        rows = [{"messages": TURNS, column: value} for vs, _ in sources.values() for value in vs]
        write(root / folder / "train-00000-of-00001.parquet", rows * 9)


def _open_mixtures(root):
    chats, pairs = [{"messages": TURNS}] * 250, [{"question": "1 + 1?", "answer": "2"}] * 250
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    for split in ("Llama_Nemotron_Post_Training_Dataset_reasoning_r1", "OpenThoughts3_1.2M"):
        write(root / "smoltalk2" / "Mid" / f"{split}.jsonl", chats)
    for name in ("Pro-300K-Filtered", "Pro-MT-300K-v0.1", "Reasoning-V1-150K"):
        write(root / f"Magpie-{name}" / "train.jsonl", [{"conversations": turns}] * 250)
    write(root / "smol-smoltalk" / "train.jsonl", chats)
    write(root / "gsm8k" / "train.jsonl", pairs)
    row = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}
    write(root / "mmlu" / "auxiliary_train.jsonl", [row] * 250)


def _t5(root):
    for task in ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte"):
        write(root / "glue" / task / "train.jsonl", [CLASSIFIED] * 20)


def _flan(root):
    for name in ("imdb", "rte"):
        for split in ("train", "validation", "test"):
            path = root / DATASETS[name].tfds.partition(":")[0] / f"{split}.jsonl"
            write(path, [row_of(name)] * 210)


def _collection(root):
    (root / "cot").mkdir()
    rows = "".join(f"What is {i} + 1?\t{i + 1}\tOne more than {i}.\n" for i in range(70))
    (root / "cot" / "gsm8k_train.tsv").write_text(rows)


def _t0(root):
    for dataset, split in (
        ("imdb", "train"),
        ("super_glue/rte", "validation"),
        ("wino_bias/type1_pro", "test"),
    ):
        folder = root / "promptsource" / "templates" / dataset
        folder.mkdir(parents=True)
        (folder / "templates.yaml").write_text(TEMPLATES)
        rows = [{"text": f"It is {i}", "label": i % 2} for i in range(20)]
        write(root / dataset / f"{split}.jsonl", rows)


def _natural_instructions(root):
    instances = [{"input": f"It is {i}", "output": ["Yes", "No"]} for i in range(30)]
    task = {"Definition": ["Do."], "Positive Examples": [], "Instances": instances}
    for name in ("task1_a", "task2_b"):
        write(root / "tasks" / f"{name}.json", task)
    for track in ("default", "xlingual"):
        (root / "splits" / track).mkdir(parents=True)
        for name, task in (("train", "task1_a"), ("test", "task2_b")):
            (root / "splits" / track / f"{name}_tasks.txt").write_text(task)


def _first_release(root):
    instances = [{"input": f"It is {i}", "output": "Yes"} for i in range(30)]
    for name in ("subtask001_a", "subtask002_b"):
        write(root / f"{name}.json", {"Definition": "Do.", "Instances": instances})
    (root / "splits" / "v1").mkdir(parents=True)
    (root / "splits" / "v1" / "test_tasks.txt").write_text("subtask002_b")


SYSTEMS = {
    "tasks.alpaca": (_alpaca, ["alpaca"]),
    "tasks.dolly": (_dolly, ["dolly_open_qa"]),
    "tasks.flan.flan2021": (_flan, ["flan2021_found", "flan2021_rte_score_eval"]),
    "tasks.flan.collection": (_collection, ["flan_collection_found"]),
    "tasks.gsm8k.tasks": (_gsm8k, ["gsm8k", "gsm8k_5_shot"]),
    "tasks.instructgpt": (_instructgpt, ["instructgpt"]),
    "tasks.lima": (_lima, ["lima"]),
    "tasks.natural_instructions.tasks": (
        _natural_instructions,
        ["natural_instructions_xlingual_train", "natural_instructions_heldout"],
    ),
    "tasks.natural_instructions.encodings": (
        _natural_instructions, ["natural_instructions_five_way_train"],
    ),
    "tasks.natural_instructions.v1": (
        _first_release, ["natural_instructions_v1_train", "natural_instructions_v1_heldout"],
    ),
    "tasks.open_mixtures.tasks": (_open_mixtures, ["magpie", "nanochat_sft"]),
    "tasks.open_assistant": (_open_assistant, ["open_assistant_best_en"]),
    "tasks.quickstart.tasks": (lambda root: None, ["quickstart_heldout"]),
    "tasks.self_instruct": (_self_instruct, ["self_instruct", "self_instruct_user_oriented"]),
    "tasks.sharegpt": (_sharegpt, ["sharegpt"]),
    "tasks.t0.tasks": (_t0, ["t0_train", "t0_eval_score_eval"]),
    "tasks.t5.tasks": (_t5, ["glue_proportional"]),
    "tasks.tulu": (_tulu, ["tulu2_sft", "tulu3_sft"]),
}  # fmt: skip


def test_every_system_is_here():
    assert set(SYSTEMS) == set(tasks.SYSTEMS.values())


@pytest.mark.slow
@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("module", SYSTEMS)
def test_mixtures_whose_data_is_here_are_shown(tmp_path, capsys, module):
    make, mixtures = SYSTEMS[module]
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    seqio_registry._registered.clear()
    for mixture in mixtures:
        arguments = [f"--config.data.root={tmp_path / 'data'}",
                     f"--config.data.store_dir={tmp_path / 'stores'}"]  # fmt: skip
        status = main.main(["inspect", mixture, *arguments])
        shown = capsys.readouterr()
        assert status == 0, shown.err
        for text in ("trained tokens are between", "requested", "of trained tokens", mixture[:4]):
            assert text in shown.out


def _table():
    """The table of systems in the docs: the cells of mixtures and of recipes, names in full."""
    page = (REPO / "docs" / "systems" / "index.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| [")]
    return [[re.findall(r"`([^`]+)`", cell) for cell in row[2:4]] for row in rows]


@pytest.mark.usefixtures("own_registry")
def test_the_page_names_what_there_is(tmp_path):
    mixtures, recipes = zip(*_table(), strict=True)
    for recipe in itertools.chain(*recipes):
        assert (REPO / recipe).exists(), recipe
    for module, (make, _) in SYSTEMS.items():
        root = tmp_path / module
        root.mkdir()
        make(root)
        seqio_registry._registered.clear()
        seqio_registry.import_modules((module,), str(root))
    registered = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
    pattern = re.compile(r".*[A-Z*].*")  # Placeholders and patterns.
    named = {name for name in itertools.chain(*mixtures) if not pattern.fullmatch(name)}
    assert len(named) > 15 and named <= registered, named - registered


# Every name that an empty folder lets be registered, and one of each system that needs its data
# for that: the command's own function, in one process.
EVERY = """
import contextlib, io, sys
from ift_jax.commands import main
def run(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main(["inspect", *arguments, "--config.data.root=" + sys.argv[1],
                            "--config.data.store_dir=" + sys.argv[2]])
    return status, out.getvalue(), err.getvalue()
status, out, err = run()
print("listing", status, flush=True)
names, needing = sys.argv[3:], []
for line in out.splitlines():
    if not line.startswith(" "):
        module = line
    elif line.startswith("  cannot be registered"):
        needing.append(module)
    elif not line.startswith("  and ") and module != "tasks.quickstart.tasks":
        names.append(line.split()[0])
print("needing", *needing, flush=True)
for name in names:
    status, out, err = run(name)
    print(name, status, err.strip().replace("\\n", "<newline>"), sep="|", flush=True)
"""
NAMED = (
    "natural_instructions_train", "natural_instructions_cap64_train", "sharegpt", "t0_train",
    "natural_instructions_v1_train", "gsm8k_5_shot",
)  # fmt: skip


@pytest.mark.slow
def test_what_is_missing_is_one_line_with_how_to_get_it(tmp_path):
    (tmp_path / "empty").mkdir()
    environment = dict(
        os.environ,
        PYTHONPATH=str(REPO),
        HF_HOME=str(tmp_path / "hub"),
        TFDS_DATA_DIR=str(tmp_path / "tfds"),
    )
    done = subprocess.run(
        [sys.executable, "-c", EVERY, str(tmp_path / "empty"), str(tmp_path / "stores"), *NAMED],
        capture_output=True,
        text=True,
        cwd=REPO,
        env=environment,
        timeout=300,
        check=True,
    )
    listing, needing, *answers = done.stdout.splitlines()
    assert listing == "listing 0" and len(answers) > 130
    assert set(needing.split()[1:]) == {
        f"tasks.{name}"
        for name in (
            "natural_instructions.tasks",
            "natural_instructions.encodings",
            "natural_instructions.v1",
            "sharegpt",
            "t0.tasks",
        )
    }
    for answer in answers:
        name, status, line = answer.split("|", 2)
        assert status == "2" and line.startswith("error: ") and "<newline>" not in line, answer
        how = ("; put ", "; get it from ", "; get them from ", "; expected a copy of ")
        assert any(words in line for words in (*how, "a checkout of github.com/")), answer
