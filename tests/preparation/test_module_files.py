"""The source files that a run's tasks depend on."""

import importlib

from ift_jax.preparation.module_files import module_files


def test_imports_are_followed_to_the_files_that_matter(config, tmp_path):
    package = tmp_path / "modules" / "made_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner.py").write_text("def late():\n    from made_helper import VALUE\n")
    (package / "unused.py").write_text("")
    importlib.invalidate_caches()
    names = [p.name for p in module_files(["made_package"])]
    assert sorted(names) == ["__init__.py", "inner.py", "made_helper.py"]
