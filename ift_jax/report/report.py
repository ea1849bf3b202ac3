"""The report of one or several runs: a page of their losses, scores and answers."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from ift_jax.config import files as config_files
from ift_jax.io.files import write_atomically
from ift_jax.report import evaluation_sections, progress_sections, training_sections
from ift_jax.report.overview import overview
from ift_jax.report.page import Markup, element, joined, page, table
from ift_jax.report.run_files import REPORT_FILE, RunFiles, read_run
from ift_jax.version import __version__

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "seqio", "numpy")


def report(paths: Sequence[str], names: Sequence[str] | None = None) -> str:
    """Return the report of some runs as the text of a page.

    Args:
        paths: Local workdirs. The runs may still be going on.
        names: What the page calls the runs; by default their folders.

    Raises:
        UserError: One is not the workdir of a run.
    """
    names = names or _names(paths)
    runs = [read_run(path, name) for path, name in zip(paths, names, strict=True)]
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs: {', '.join(names)}"
    of = {run.name: "" if len(runs) == 1 else f" of {run.name}" for run in runs}
    sections: list[tuple[str, object]] = [
        *(
            (f"Scores while training{of[run.name]}", progress_sections.progress(run))
            for run in runs
        ),
        ("Scores at the end", evaluation_sections.scores(runs)),
        ("Benchmarks", evaluation_sections.benchmarks(runs)),
        ("Loss", training_sections.losses(runs)),
    ]
    for run in runs:
        sections += [
            (f"Answers through time{of[run.name]}", evaluation_sections.previews(run)),
            (f"Tasks{of[run.name]}", training_sections.task_losses(run)),
            (f"Mixture{of[run.name]}", training_sections.mixture(run)),
        ]
    sections += [
        ("Speed", training_sections.speed(runs)),
        ("Config", _config(runs)),
        ("Versions", _versions()),
    ]
    return page(title, overview(runs), sections)


def renew_report(workdir: str) -> str | None:
    """Write the page of a run again, if it has one, because another command added to its files.

    Returns:
        The path of the page; None if the run has none.

    Raises:
        UserError: A file of the run is damaged, or the page cannot be written.
    """
    path = os.path.join(workdir, REPORT_FILE)
    if not os.path.exists(path):
        return None
    write_atomically(Path(path), report([workdir]).encode())
    return path


def _names(paths: Sequence[str]) -> list[str]:
    """Return a name for each run: its folder's, or all of its path where two are alike."""
    short = [os.path.basename(os.path.normpath(path)) for path in paths]
    return [
        name if short.count(name) == 1 else path for name, path in zip(short, paths, strict=True)
    ]


def _config(runs: Sequence[RunFiles]) -> Markup:
    """Return the fields in which runs differ, or in which one run differs from the defaults."""
    if len(runs) == 1:
        architecture = runs[0].config["model.architecture"]
        flat_defaults = config_files.flat(config_files.default_config(architecture).to_dict())
        rows = [
            (name, _text(value), _text(flat_defaults.get(name)))
            for name, value in sorted(runs[0].config.items())
            if _text(value) != _text(flat_defaults.get(name))
        ]
        return joined(
            [
                element("p", "Fields that differ from the defaults.", class_="note"),
                table(["field", "value", "default"], rows),
            ]
        )
    fields = sorted({name for run in runs for name in run.config})
    rows_of_runs = [
        (name, *(_text(run.config.get(name)) for run in runs))
        for name in fields
        if len({_text(run.config.get(name)) for run in runs}) > 1
    ]
    if not rows_of_runs:
        return element("p", "The configs are the same.", class_="note")
    return joined(
        [
            element("p", "Fields in which the runs differ.", class_="note"),
            table(["field", *(run.name for run in runs)], rows_of_runs),
        ]
    )


def _text(value: object) -> str:
    """Return a value of a config as text; JSON has lists for tuples."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e6 else str(value)
    return str(value) if len(str(value)) <= 200 else f"{str(value)[:200]}..."


def _versions() -> Markup:
    rows = [("ift_jax", __version__), ("Python", platform.python_version())]
    rows += [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    note = "The versions that wrote this page; at the end of a run they are the run's own."
    return joined([element("p", note, class_="note"), table(["package", "version"], rows)])
