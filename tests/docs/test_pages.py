"""The pages that show how to extend the package, executed: their files and commands work."""

import json
import runpy
import shlex
import sys

import pytest

from ift_jax.commands import main
from ift_jax.interop import model_family
from tests.docs import pages

pytestmark = pytest.mark.usefixtures("one_device", "own_registry")


class Page:
    """A page whose files are written into an empty folder, which is the working folder."""

    def __init__(self, name, folder, monkeypatch, capsys):
        self.text = (pages.REPO / "docs" / name).read_text(encoding="utf-8")
        self.folder, self._capsys = folder, capsys
        self.files = pages.named_files(self.text)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(str(folder))
        for file, text in self.files.items():
            (folder / file).write_text(text, encoding="utf-8")

    def run(self, line):
        """What a command line prints; it must succeed."""
        program, *arguments = shlex.split(line, comments=True)
        if program == "python":
            runpy.run_path(*arguments)
        else:
            assert program == "ift", line
            assert main.main(arguments) == 0, f"{line}\n{self._capsys.readouterr().err}"
        return self._capsys.readouterr().out

    def run_all(self):
        """What each command line of the page prints, by its first two words."""
        shown = {}
        for line in pages.executed_lines(self.text):
            key = " ".join(line.split()[:2])
            shown[key] = shown.get(key, "") + self.run(line)
        return shown


@pytest.fixture
def open_page(tmp_path, monkeypatch, capsys):
    """Opens a page; the modules that it writes are forgotten after the test."""
    before = set(sys.modules)
    yield lambda name: Page(name, tmp_path, monkeypatch, capsys)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / f"{name}.py"):
            del sys.modules[name]


def test_add_a_task(open_page):
    page = open_page("add_a_task.md")
    shown = page.run_all()
    assert "What is the capital of" in shown["ift inspect"]
    assert "66.667%" in shown["ift inspect"]  # The rates, 2 to 1.
    assert "train: 2 tasks, 68 examples" in shown["ift prepare"]  # 38 of 40 lines, and 30 words.
    assert "eval: 2 tasks, 8 examples" in shown["ift prepare"]
    assert "recipe: 1 epoch" in shown["ift train"]


def test_add_a_metric(open_page):
    page = open_page("add_a_metric.md")
    shown = page.run_all()
    assert shown["python try_metric.py"] == "{'same_letters': 0.5}\n"
    [scores] = json.loads((page.folder / "runs/letters/evaluation.json").read_text()).values()
    assert 0 <= scores["tasks"]["reverse"]["same_letters"] <= 1


def test_add_a_model_family(open_page, monkeypatch):
    monkeypatch.setattr(model_family, "_FAMILIES", dict(model_family._FAMILIES))
    page = open_page("add_a_model_family.md")
    shown = page.run("python describe.py")
    assert "layers.mlp_pre_norm.scale (4, 32) model.layers.0.pre_feedforward_layernorm" in shown
    assert pages.executed_lines(page.text) == ["python describe.py", "python compare.py"]


def test_the_family_of_the_page_has_the_logits_of_transformers(open_page, monkeypatch):
    pytest.importorskip("torch", reason="the reference models are torch modules")
    pytest.importorskip("transformers", reason="the reference models live there")
    monkeypatch.setattr(model_family, "_FAMILIES", dict(model_family._FAMILIES))
    assert "largest difference" in open_page("add_a_model_family.md").run("python compare.py")


def test_add_a_chat_template(open_page):
    page = open_page("add_a_chat_template.md")
    shown = page.run_all()["ift inspect"]
    assert "WRONG" not in shown and "stop_trained" in shown
    assert "Good morning." in shown


def test_own_system(open_page):
    page = open_page("own_system.md")
    names = ["make_data.py", "units.jinja", "units.py", "units_recipe.py"]
    assert sorted(path.name for path in page.folder.iterdir()) == names
    shown = page.run_all()
    commands = ["ift inspect", "ift prepare", "ift train", "ift eval"]
    assert list(shown) == ["python make_data.py", *commands]
    assert "units_length" in shown["ift inspect"]
    assert "66.667%" in shown["ift inspect"]  # The rates, 2 to 1.
    assert "units_weight" in shown["ift inspect"]  # The last command needs no recipe.
    assert "heldout: 1 task, 200 examples" in shown["ift prepare"]
    assert "trained to step 20" in shown["ift train"]
    scores = json.loads((page.folder / "scores.json").read_text())
    assert set(scores["tasks"]) == {"units_time"} and len(scores["answers"]) == 5
    assert 0 <= scores["tasks"]["units_time"]["right_within_a_tenth"] <= 1
