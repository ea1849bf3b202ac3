"""Which model fits on which TPU topology, and how a model scales, by the TPU compiler alone.

    python -m benchmarks.pods                 # compile the rows that benchmarks/pods.json lacks
    python -m benchmarks.pods 8b-v5p-64       # compile these again; --all: every row
    python -m benchmarks.pods > docs/pods.md  # the printed text is that page

A row is one `ift plan` in a separate process. It needs no TPU, weights, or data. A compile takes
minutes, so rows are kept in benchmarks/pods.json with the command that made them. A row whose
command has changed is compiled again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.errors import counted
from ift_jax.planning.collectives import KINDS
from ift_jax.planning.report import sent_by_kind

STATE = ("parameters", "frozen parameters", "optimizer")  # Parts of a plan's memory.
KEPT = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).with_name("pods_page.md").read_text()


class PlannedModel(NamedTuple):
    """A model of the tables.

    Attributes:
        name: Its name in the tables.
        config: Its recipe.
        row_lengths: The tokens of a row, as the tables show them.
    """

    name: str
    config: str
    row_lengths: str


class PlannedRow(NamedTuple):
    """A row of the tables, and the arguments of the `ift plan` that makes it."""

    model: PlannedModel
    arguments: list[str]


LLAMA_8B = PlannedModel("Llama-3.1-8B", "configs/tulu3.py:8b", "4,096")
LLAMA_70B = PlannedModel("Llama-3.1-70B", "configs/tulu3.py:70b", "4,096")
QWEN3_30B = PlannedModel("Qwen3-30B-A3B", "configs/qwen3_30b_a3b.py", "4,096")
QWEN3_5_4B = PlannedModel("Qwen3.5-4B", "configs/qwen3_5.py:4b", "4,096")
GEMMA_4_E4B = PlannedModel("Gemma-4-E4B", "configs/gemma4.py:e4b", "4,096")
QLORA = "configs/qlora.py"
LLAMA_8B_QLORA = PlannedModel("Llama-3.1-8B, QLoRA", QLORA, "2,048")
T5_XXL = PlannedModel("T5-XXL, 11B", "configs/t0.py:11b", "1,024 + 256")


def _row(model: PlannedModel, topology: str, batch_size: int) -> PlannedRow:
    fields = [f"train.batch_size={batch_size}", "train.gradient_accumulation_steps=1"]
    if model == T5_XXL:
        fields.append("train.batch_tokens=0")
    arguments = ["--config", model.config, "--topology", topology]
    return PlannedRow(model, [*arguments, *(f"--config.{field}" for field in fields)])


MODELS = {
    "8b-v4-64": _row(LLAMA_8B, "v4:4x4x4", 256),
    "8b-v5p-64": _row(LLAMA_8B, "v5p:4x4x4", 256),
    "8b-v5e-256": _row(LLAMA_8B, "v5e:16x16", 256),
    "8b-v6e-256": _row(LLAMA_8B, "v6e:16x16", 256),
    "8b-tpu7x-64": _row(LLAMA_8B, "tpu7x:4x4x2", 256),
    "t5-xxl-v5p-64": _row(T5_XXL, "v5p:4x4x4", 512),
    "70b-v5p-512": _row(LLAMA_70B, "v5p:8x8x8", 512),
}
SCALING = {
    "8b-v5p-16": _row(LLAMA_8B, "v5p:2x2x4", 64),
    "8b-v5p-64": MODELS["8b-v5p-64"],
    "8b-v5p-256": _row(LLAMA_8B, "v5p:4x8x8", 1024),
    "8b-v5p-1024": _row(LLAMA_8B, "v5p:8x8x16", 4096),
}
HYBRIDS = {
    "qwen3.5-4b-v6e-8": _row(QWEN3_5_4B, "v6e:2x4", 16),
    "qwen3.5-4b-v5p-8": _row(QWEN3_5_4B, "v5p:2x2x1", 16),
}
EXPERTS = {
    "qwen3-30b-v5p-64": PlannedRow(
        QWEN3_30B, ["--config", QWEN3_30B.config, "--topology", "v5p:4x4x4"]
    ),
}
ONE_CHIP = {
    "8b-qlora-v5e-1": PlannedRow(LLAMA_8B_QLORA, ["--config", QLORA, "--topology", "v5e:1x1"]),
    "8b-qlora-v6e-1": PlannedRow(LLAMA_8B_QLORA, ["--config", QLORA, "--topology", "v6e:1x1"]),
}
LAYER_TABLES = {
    "gemma-4-e4b-v6e-8": _row(GEMMA_4_E4B, "v6e:2x4", 16),
    "gemma-4-e4b-v5p-8": _row(GEMMA_4_E4B, "v5p:2x2x1", 16),
}
ROWS = MODELS | SCALING | HYBRIDS | LAYER_TABLES | EXPERTS | ONE_CHIP


def make(arguments: list[str]) -> dict[str, Any]:
    """Run one `ift plan` and return its record."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        command = [sys.executable, "-m", "ift_jax.commands.main", "plan", *arguments]
        done = subprocess.run([*command, "--json", str(file)], stdout=sys.stderr)
        if done.returncode not in (0, 1):
            raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}")
        record = json.loads(file.read_text())
    if record["fits"]:
        record["collectives"] = sent_by_kind(record)
    return record


def kept_rows(names: list[str], every: bool) -> dict[str, dict[str, Any]]:
    """Return all rows, compiling those that are not kept or are asked for by name."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept = {name: kept[name] for name in ROWS if name in kept}
    for name, row in ROWS.items():
        arguments = row.arguments
        if every or name in names or kept.get(name, {}).get("arguments") != arguments:
            print(f"{name}: ift plan {' '.join(arguments)}", file=sys.stderr, flush=True)
            kept[name] = {"arguments": arguments, **make(arguments)}
            ordered = {name: kept[name] for name in ROWS if name in kept}
            KEPT.write_text(json.dumps(ordered, indent=1) + "\n")
    return kept


def table(rows: list[dict[str, str]]) -> list[str]:
    """Return the lines of a Markdown table; the names of the first row are its head."""

    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return [line(rows[0]), line(["---"] * len(rows[0])), *(line(row.values()) for row in rows)]


def cells(name: str, record: dict[str, Any]) -> dict[str, str]:
    """The cells of a row in the tables of models and of scaling."""
    model = ROWS[name].model
    memory = record["memory"]

    def gib(size: float) -> str:
        return f"{size / 2**30:.2f}"

    mesh = ", ".join(f"{axis} {size}" for axis, size in record["mesh"].items() if size > 1)
    row = {
        "row": name,
        "model, row's tokens": f"{model.name}, {model.row_lengths}",
        "topology": f"{record['topology']}, {counted(record['devices'], 'device')}",
        "mesh": mesh or "-",
        "rows per device, accumulation steps": f"{record['rows'] / record['devices']:g}, "
        f"{record['gradient_accumulation_steps']}",
        "fits": "yes" if record["fits"] else "no",
        "state, GiB": gib(sum(memory["parts"].get(part, 0) for part in STATE)),
        "in all, of": f"- of {gib(record['hbm'])}",
    }
    if not record["fits"]:
        return row
    step = record["compiler_estimate"]
    return row | {
        "in all, of": f"{gib(memory['total'])} of {gib(record['hbm'])}",
        "sent, GiB": gib(sum(sent for _, sent in record["collectives"].values())),
        "compiler estimate": f"{step['seconds']:.2f} s, MFU {step['mfu']:.0%}, {step['bound']}",
        "compiled in": f"{record['compile_seconds']:.0f} s",
    }


def collective_cells(name: str, record: dict[str, Any]) -> dict[str, str]:
    """The cells of a row in the table of collectives."""
    row = {"row": name}
    for kind in KINDS:
        if kind in record["collectives"]:
            executions, n_bytes = record["collectives"][kind]
            row[kind] = f"{n_bytes / 2**30:.2f} GiB in {executions:,}"
        else:
            row[kind] = "-"
    return row


def page(kept: dict[str, dict[str, Any]]) -> str:
    """Return the text of docs/pods.md."""
    versions = {
        f"jax {record['versions']['jax']}, libtpu {record['versions']['libtpu']}"
        for record in kept.values()
    }
    commands = [f"{name}: ift plan {' '.join(kept[name]['arguments'])}" for name in ROWS]
    fitting = [name for name in ROWS if kept[name]["fits"] and kept[name]["devices"] > 1]
    return PAGE.format(
        versions="; ".join(sorted(versions)),
        models="\n".join(table([cells(name, kept[name]) for name in MODELS])),
        scaling="\n".join(table([cells(name, kept[name]) for name in SCALING])),
        hybrids="\n".join(table([cells(name, kept[name]) for name in HYBRIDS])),
        layer_tables="\n".join(table([cells(name, kept[name]) for name in LAYER_TABLES])),
        experts="\n".join(table([cells(name, kept[name]) for name in EXPERTS])),
        one_chip="\n".join(table([cells(name, kept[name]) for name in ONE_CHIP])),
        collectives="\n".join(table([collective_cells(name, kept[name]) for name in fitting])),
        commands="\n".join(commands),
    )


def main() -> None:
    """Compile the rows that are missing or asked for, and print the page."""
    parser = argparse.ArgumentParser(description="The tables of docs/pods.md.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--all", action="store_true", help="compile every row again")
    args = parser.parse_args()
    if unknown := set(args.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    print(page(kept_rows(args.rows, args.all)), end="")


if __name__ == "__main__":
    main()
