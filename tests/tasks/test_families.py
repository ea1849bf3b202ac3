"""A system is registered by naming one of its mixtures, and nothing else is."""

import subprocess
import sys
from pathlib import Path

import pytest

import tasks


@pytest.mark.parametrize(
    ("names", "modules"),
    [
        (["flan2021_without_sentiment"], ("tasks.flan2021",)),
        (["flan2021_multi_shot"], ("tasks.flan2021",)),
        (["flan_collection_cot"], ("tasks.flan_collection",)),
        (["natural_instructions_train"], ("tasks.natural_instructions",)),
        (["natural_instructions_xlingual_train"], ("tasks.natural_instructions",)),
        (["natural_instructions_five_way_train"], ("tasks.natural_instructions_encodings",)),
        (["natural_instructions_v1_train"], ("tasks.natural_instructions_v1",)),
        (["t0+_train", "", "t0_eval_score_eval"], ("tasks.t0",)),
        (["t5_all_proportional", "glue_eval"], ("tasks.t5",)),
        (["tulu3_sft"], ("tasks.tulu",)),
        (["gsm8k", "gsm8k_5_shot"], ("tasks.gsm8k", "tasks.in_context")),
        (["my_own"], ()),
    ],
)
def test_the_longest_beginning_decides(names, modules):
    assert tasks.modules_of(*names) == modules


def test_every_system_can_be_named():
    folder = Path(tasks.__file__).parent
    registering = {
        f"tasks.{path.stem}"
        for path in folder.glob("*.py")
        if "\ndef register(" in path.read_text()
    }
    named = set(tasks.FAMILIES.values())
    assert registering - named == {"tasks.in_context", "tasks.jsonl"}
    assert named - registering == {"tasks.quickstart"}  # It registers when it is imported.


def test_naming_one_system_imports_no_other():
    code = (
        "import importlib, sys, tasks\n"
        "[importlib.import_module(m).register('') for m in tasks.modules_of('flan2021')]\n"
        "print(*sorted(m for m in sys.modules if m.startswith('tasks.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(tasks.__file__).parents[1],
    )  # fmt: skip
    found = done.stdout.split()
    assert "tasks.flan2021" in found
    shared = ("tasks.sources", "tasks.preparation", "tasks.metrics")
    assert not [m for m in found if not m.startswith(("tasks.flan", *shared))]
