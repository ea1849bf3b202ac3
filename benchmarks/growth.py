"""How each cost grows: the train step, preparing, opening, and planning. Two quiet cores, CPU.

    python -m benchmarks.growth          # measures, writes benchmarks/growth.json, draws the plots
    python -m benchmarks.growth --plot   # draws the plots of docs/growth.md anew, from that file

One process measures all points, within six minutes: the median of a step's times, the least of the
others', of up to five repetitions each. The model is small (two layers, d 128), so that what grows
is seen beside its layers. The tokens of a batch, and the examples of all tasks together, are the
same at all points of a curve. The plots are docs/growth_*.svg.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import growth_costs
from benchmarks.machine import CpuTime, describe

REPO = Path(__file__).parents[1]
KEPT = Path(__file__).with_suffix(".json")


class Sizes(NamedTuple):
    """The points of each curve, and what is the same at all of them."""

    row_lengths: tuple[int, ...]
    vocabularies: tuple[int, ...]
    tasks: tuple[int, ...]
    examples: tuple[int, ...]
    packed_example: int  # Tokens of an example where a row holds many.
    batch_tokens: int
    small_vocabulary: int
    records: int  # Prepared in all.
    planned: int  # Examples that are planned in all.


SIZES = Sizes(
    row_lengths=(512, 1024, 2048, 4096, 8192),
    vocabularies=(1024, 4096, 16_384, 32_768, 65_536, 131_072),
    tasks=(1, 10, 100, 400, 1600),
    examples=(10_000, 100_000, 1_000_000, 5_000_000),
    packed_example=256,
    batch_tokens=8192,
    small_vocabulary=4096,
    records=3200,
    planned=500_000,
)
# To try it in seconds; its figures mean nothing.
TINY = Sizes((32,), (64,), (1, 2), (100, 200), 8, 64, 64, 4, 100)

Curve = dict[str, growth_costs.Point]  # By the size.
Curves = dict[str, Curve]


def measure(sizes: Sizes) -> Curves:
    """Measure every point; print a line for each."""
    curves: Curves = {}

    def add(curve: str, size: int, point: growth_costs.Point) -> None:
        curves.setdefault(curve, {})[str(size)] = point
        print(curve, size, point, file=sys.stderr, flush=True)

    tokens, vocabulary = sizes.batch_tokens, sizes.small_vocabulary
    for length in sizes.row_lengths:
        packed = growth_costs.step(length, sizes.packed_example, vocabulary, tokens)
        add("step, packed rows", length, packed)
        add(
            "step, one example a row", length, growth_costs.step(length, length, vocabulary, tokens)
        )
    for vocabulary in sizes.vocabularies:
        length = sizes.row_lengths[0]
        point = growth_costs.step(length, sizes.packed_example, vocabulary, tokens)
        add("step by vocabulary", vocabulary, point)
    for n_examples in sizes.examples:
        add("planning", n_examples, growth_costs.planning(n_examples, 1))
    for n_tasks in sizes.tasks:
        add("planning by tasks", n_tasks, growth_costs.planning(sizes.planned, n_tasks))
        stores = growth_costs.preparing_and_opening(sizes.records, n_tasks)
        add("preparing", n_tasks, stores["preparing"])
        add("opening", n_tasks, stores["opening"])
    return curves


# --- Plots ---


class Plot(NamedTuple):
    """A plot: the figure of some curves, and what the axes show."""

    file: str
    title: str
    curves: dict[str, str]  # Names in the legend, by those in the results.
    figure: str
    x_label: str
    y_label: str
    unit: int = 1  # What the horizontal axis counts in.


PLOTS = (
    Plot(
        "growth_length.svg",
        "Train step against the length of a row",
        {
            "step, packed rows": "examples of 256 tokens",
            "step, one example a row": "one example a row",
        },
        "tokens_per_second",
        "tokens of a row",
        "tokens per second",
    ),
    Plot(
        "growth_vocabulary.svg",
        "Train step against the size of the vocabulary",
        {"step by vocabulary": "train step"},
        "tokens_per_second",
        "pieces of the vocabulary, in 1,024",
        "tokens per second",
        unit=1024,
    ),
    Plot(
        "growth_tasks.svg",
        "Preparing, opening, and planning against the number of tasks",
        {
            "preparing": "preparing 3,200 records",
            "opening": "opening their stores",
            "planning by tasks": "planning 500,000 examples",
        },
        "seconds",
        "tasks",
        "seconds",
    ),
    Plot(
        "growth_examples.svg",
        "Planning three epochs against the number of examples",
        {"planning": "planning"},
        "seconds",
        "thousand examples",
        "seconds",
        unit=1000,
    ),
)


def draw(curves: Curves, folder: Path) -> None:
    """Write the plots."""
    from ift_jax.report.plots import Series, line_plot, standalone

    for plot in PLOTS:
        series = []
        for curve, name in plot.curves.items():
            xs = [int(size) / plot.unit for size in curves[curve]]
            ys = [point[plot.figure] for point in curves[curve].values()]
            series.append(Series(name, xs, ys))
        svg = line_plot(
            plot.title,
            series,
            x_label=plot.x_label,
            y_label=plot.y_label,
            log_x=True,
            log_y=plot.figure == "seconds",
            dots=True,
        )
        (folder / plot.file).write_text(standalone(svg) + "\n")


def main(argv: list[str] | None = None) -> None:
    """Measure, unless only plots are asked for, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", action="store_true", help="draw what was measured before")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to try it in seconds")
    parser.add_argument("--json", type=Path, default=KEPT, help="the file of the results")
    parser.add_argument("--plots", type=Path, default=REPO / "docs", help="the folder of the plots")
    args = parser.parse_args(argv)
    if not args.plot:
        machine, before = describe(), CpuTime.now()
        curves = measure(TINY if args.tiny else SIZES)
        now = CpuTime.now()
        found: dict[str, Any] = {
            "machine": machine,
            "seconds": round(now.wall - before.wall, 1),
            "load_of_others": before.load_of_others(now),
            "curves": curves,
        }
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    draw(json.loads(args.json.read_text())["curves"], args.plots)


if __name__ == "__main__":
    main()
