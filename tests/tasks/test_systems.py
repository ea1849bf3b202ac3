"""Naming a mixture registers its system, and no other."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tasks
from ift_jax.config.systems import modules_of
from ift_jax.metrics import metric_names

_METRIC_MODULES = ("tasks.gsm8k.metrics", "tasks.natural_instructions.metrics", "tasks.t5.metrics")


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        (["flan2021_without_sentiment"], ("tasks.flan.flan2021",)),
        (["flan2021_multi_shot"], ("tasks.flan.flan2021",)),
        (["flan_collection_cot"], ("tasks.flan.collection",)),
        (["natural_instructions_train"], ("tasks.natural_instructions.tasks",)),
        (["natural_instructions_xlingual_train"], ("tasks.natural_instructions.tasks",)),
        (["natural_instructions_five_way_train"], ("tasks.natural_instructions.encodings",)),
        (["natural_instructions_v1_train"], ("tasks.natural_instructions.v1",)),
        (["t0+_train", "", "t0_eval_score_eval"], ("tasks.t0.tasks",)),
        (["t5_all_proportional", "glue_eval"], ("tasks.t5.tasks",)),
        (["tulu3_sft"], ("tasks.tulu",)),
        (["gsm8k", "gsm8k_5_shot"], ("tasks.gsm8k.tasks", "ift_jax.sources.few_shot")),
        (["my_own"], ()),
    ],
)
def test_the_longest_beginning_decides(names, modules):
    assert modules_of(tasks.SYSTEMS, *names) == modules


def test_every_system_can_be_named():
    folder = Path(tasks.__file__).parent
    registering = {
        ".".join(("tasks", *path.relative_to(folder).with_suffix("").parts))
        for path in folder.rglob("*.py")
        if "\ndef register(" in path.read_text()
    }
    named = set(tasks.SYSTEMS.values())
    assert registering - named == {"tasks.jsonl"}
    assert named <= registering


def test_naming_one_system_imports_no_other():
    code = (
        "import importlib, sys, tasks\n"
        "from ift_jax.config.systems import modules_of\n"
        "[importlib.import_module(m).register('') for m in modules_of(tasks.SYSTEMS, 'flan2021')]\n"
        "print(*sorted(m for m in sys.modules if m.startswith('tasks.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(tasks.__file__).parents[1],
    )
    found = done.stdout.split()
    assert "tasks.flan.flan2021" in found
    shared = ("ift_jax.sources", "ift_jax.preparation", "ift_jax.metrics")
    # FLAN scores with T5's metrics; T5's tasks stay out.
    scores = {"tasks.t5", "tasks.t5.formats", "tasks.t5.metrics"}
    assert not [m for m in found if not m.startswith(("tasks.flan", *shared)) and m not in scores]


@pytest.mark.parametrize("module", ["ift_jax.metrics", *_METRIC_MODULES])
def test_every_metric_of_ours_takes_lists_of_accepted_answers_and_says_so(module):
    found = [
        function
        for function in vars(importlib.import_module(module)).values()
        if inspect.isfunction(function)
        and not function.__name__.startswith("_")
        and function.__module__ == module
        and list(inspect.signature(function).parameters) == ["targets", "predictions"]
    ]
    assert found
    for function in found:
        assert metric_names([function]) == [f"{module}:{function.__name__}"]
