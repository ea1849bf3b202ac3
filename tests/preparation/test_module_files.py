"""The source files that a run's tasks depend on."""

import importlib
import sys

import pytest

from ift_jax.errors import UserError
from ift_jax.preparation.module_files import check_as_imported, module_files


def test_imports_are_followed_to_the_files_that_matter(config, tmp_path):
    package = tmp_path / "modules" / "made_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner.py").write_text("def late():\n    from made_helper import VALUE\n")
    (package / "unused.py").write_text("")
    importlib.invalidate_caches()
    names = [p.name for p in module_files(["made_package"])]
    assert sorted(names) == ["__init__.py", "inner.py", "made_helper.py"]


def test_a_module_that_was_edited_after_its_import_is_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    helper = tmp_path / "edited_helper.py"
    helper.write_text("PROMPT = 'Say '\n")
    (tmp_path / "edited_tasks.py").write_text("import edited_helper\n")
    files = module_files(["edited_tasks"])
    check_as_imported(files)  # It is not imported yet.
    importlib.import_module("edited_tasks")
    check_as_imported(files)
    helper.write_text("PROMPT = 'Shout '\n")
    with pytest.raises(UserError, match=r"edited_helper\.py: has changed since .* kernel"):
        check_as_imported(files)
    for name in ("edited_tasks", "edited_helper"):  # What a new process does.
        del sys.modules[name]
    importlib.invalidate_caches()
    importlib.import_module("edited_tasks")
    check_as_imported(files)
