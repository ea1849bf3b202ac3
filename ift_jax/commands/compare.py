"""`ift compare`.

For example:
  ift compare runs/before runs/after
  ift compare untuned.json runs/a runs/b --metric exact_match --output comparison.json
  ift compare runs/a0,runs/a1,runs/a2 runs/b0,runs/b1,runs/b2
  ift compare --few-shot 5 runs/tuned --output in_context.json --plot in_context.svg

Every further run is compared with the first. A run is a workdir whose run evaluated at its end, or
a file that `ift eval --output` wrote; runs joined by commas are seeds of one recipe. Examples are
compared one by one: the interval of a difference is that of the paired bootstrap, over 10,000
draws of the examples of each task, and McNemar's exact test compares right and wrong answers. "No
difference shown" means that zero lies in the interval.
"""

import argparse
import itertools

from ift_jax.commands import arguments, compare_few_shot
from ift_jax.errors import UserError, offered
from ift_jax.io.outputs import file_output, write_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a workdir, a file that `ift eval --output` wrote, or several with commas between, "
        "which are seeds",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="a metric to compare; repeatable; default: all that every run has",
    )
    parser.add_argument(
        "--output",
        type=arguments.local_path,
        metavar="FILE",
        help="where to write all differences as JSON",
    )
    parser.add_argument(
        "--seed",
        type=arguments.whole_number(0),
        default=0,
        metavar="N",
        help="seed of the draws; default: 0",
    )
    compare_few_shot.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0, or the status of a signal."""
    if args.few_shot is not None:
        return compare_few_shot.run(args)
    compare_few_shot.check_not_asked(args)
    from ift_jax.evaluation.comparison import Group, compare, shared_metrics, table
    from ift_jax.evaluation.metric_values import json_text
    from ift_jax.evaluation.recorded_answers import read_answers

    if len(args.runs) < 2:
        raise UserError("expected two runs or more to compare")
    with file_output(args.output, "--output"):
        groups = [
            Group(word, [read_answers(path) for path in word.split(",") if path])
            for word in args.runs
        ]
        empty = [group.name for group in groups if not group.runs]
        if empty:
            raise UserError(f"{empty[0]!r}: expected the path of a run")
        known = shared_metrics(groups)
        for name in args.metric:
            if name not in known:
                raise UserError(f"--metric {name}: not in every run{offered(name, known)}")
        first, *others = groups
        comparisons = [
            compare(first, other, metric, args.seed)
            for metric, other in itertools.product(args.metric or known, others)
        ]
        if args.output:
            content = json_text({"comparisons": [each.as_json() for each in comparisons]})
            write_output(args.output, content.encode())
    for number, comparison in enumerate(comparisons):
        print(*([""] if number else []), *table(comparison), sep="\n")
    return 0
