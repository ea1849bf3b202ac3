r"""Reports, and on request filters, training data that overlaps with evaluation sets.

    python -m ift_jax.inspection.decontamination --module tasks.tulu --root DATA \
        --train tulu3_sft:all \
        --module tasks.gsm8k.tasks --against gsm8k:test --against humaneval.jsonl:prompt \
        --report overlap.json --filtered clean/

Only prompts are compared, by `ngram_overlap`: each user's turn of a training example with the
prompt of an evaluation instance. What a model was taught to answer does not count. Tulu 3 removed
whole contaminated sets (for unseen evaluations, and for the others where that did no harm) or else
the overlapping examples.
"""

import argparse
import contextlib
import importlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import seqio

from ift_jax.errors import UserError
from ift_jax.inspection.ngram_overlap import (
    SET_SHARE,
    TOKEN_SHARE,
    EvaluationSet,
    N,
    Overlap,
    overlaps,
)
from ift_jax.io.files import append_json_lines
from ift_jax.io.folders import new_folder
from ift_jax.io.json_reader import parse_json
from ift_jax.io.outputs import file_output, new_output, write_output
from ift_jax.sources.row_files import read_rows
from ift_jax.sources.task_examples import text_examples

_TOGETHER = 10_000  # Records that are written at a time.


def contamination(
    train: Sequence[str],
    against: Sequence[str],
    *,
    n: int = N,
    token_share: float = TOKEN_SHARE,
    set_share: float = SET_SHARE,
) -> dict[str, Any]:
    """Report the overlap of registered training tasks with evaluation sets.

    Args:
        train: Names of tasks or mixtures, each with or without ":split" ("train").
        against: The same ("test"), or files as "path:field" or "path:field,field".
        n: Words in an n-gram.
        token_share: An instance overlaps over this share of its tokens.
        set_share: A training task is contaminated over this share of a set's instances.

    Returns:
        A JSON object: the settings; and for each training task its split, the indices of the
        `examples` to leave out, whether it is `contaminated`, and the figures of each set.

    Raises:
        UserError: A name is not registered or is given twice, or a file cannot be read.
    """
    sets = [_evaluation_set(spec, n) for spec in against]
    tasks: dict[str, Any] = {}
    for task, split in (found for spec in train for found in _tasks(spec, "train")):
        if task.name in tasks:
            raise UserError(f"training task {task.name!r} is named twice")
        prompts = (prompts_of(record) for record in text_examples(task, split))
        found = overlaps(prompts, sets, token_share)
        examples = set().union(*(overlap.training_examples for overlap in found.values()))
        figures = {name: _figures(overlap, set_share) for name, overlap in found.items()}
        tasks[task.name] = {
            "split": split,
            "contaminated": any(figure["contaminated"] for figure in figures.values()),
            "examples": sorted(examples),
            "sets": figures,
        }
    settings = {"n": n, "token_share": token_share, "set_share": set_share}
    return {"settings": settings, "tasks": tasks}


def _figures(overlap: Overlap, set_share: float) -> dict[str, Any]:
    """Return an overlap as a JSON object."""
    return {
        "instances": overlap.instances,
        "too_short": overlap.too_short,
        "share": overlap.share,
        "contaminated": overlap.share > set_share,
        "training_examples": len(overlap.training_examples),
        "overlapping": {str(k): share for k, share in sorted(overlap.overlapping.items())},
    }


def prompts_of(record: dict[str, str]) -> list[str]:
    """Return the texts of the user's turns of a record."""
    if "messages" in record:
        messages = parse_json(record["messages"], "messages")
        return [message["content"] for message in messages if message["role"] == "user"]
    return [record["inputs"]]


class _TaskSplit(NamedTuple):
    task: seqio.Task
    split: str


def _tasks(spec: str, default_split: str) -> list[_TaskSplit]:
    """Return the tasks of "name" or "name:split"."""
    name, _, split = spec.partition(":")
    if name in seqio.MixtureRegistry.names():
        tasks = seqio.MixtureRegistry.get(name).tasks
    elif name in seqio.TaskRegistry.names():
        tasks = [seqio.TaskRegistry.get(name)]
    else:
        raise UserError(f"{name!r} is no task, mixture or file; name its --module")
    return [_TaskSplit(task, split or default_split) for task in tasks]


def _evaluation_set(spec: str, n: int) -> EvaluationSet:
    path, _, names = spec.rpartition(":")
    if os.path.isfile(path):
        return EvaluationSet(spec, _file_prompts(path, names.split(",")), n)
    found = _tasks(spec, "test")
    records = (record for task, split in found for record in text_examples(task, split))
    return EvaluationSet(spec, map(prompts_of, records), n)


def _file_prompts(path: str, names: Sequence[str]) -> Iterator[list[str]]:
    for row in read_rows(path):
        fields = row.fields()
        try:
            yield [fields[name] for name in names]
        except KeyError as error:
            raise UserError(f"{path}: field {error.args[0]!r} is missing") from None


def write_filtered(report: dict[str, Any], folder: str, drop_sets: bool = False) -> dict[str, int]:
    """Write the records of the reported tasks without what overlaps, a JSON lines file a task.

    `tasks.jsonl` trains on the folder.

    Args:
        report: What `contamination` returned.
        folder: The folder to make.
        drop_sets: Leave out contaminated tasks altogether.

    Returns:
        Task -> the number of records written.
    """
    written = {}
    with new_folder(folder, "--filtered") as temporary:
        for name, found in report["tasks"].items():
            if drop_sets and found["contaminated"]:
                continue
            path = os.path.join(temporary, f"{name}.jsonl")
            records = _kept_records(name, found)
            written[name] = 0
            while together := list(itertools.islice(records, _TOGETHER)):
                append_json_lines(path, together)
                written[name] += len(together)
    return written


def _kept_records(task: str, found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each record of a task that does not overlap."""
    left_out = set(found["examples"])
    records = text_examples(seqio.TaskRegistry.get(task), found["split"])
    for index, record in enumerate(records):
        if index not in left_out:
            yield {key: _json_value(key, text) for key, text in record.items() if text}


def _json_value(field: str, text: str) -> Any:
    return parse_json(text, field) if field in ("messages", "tools", "references") else text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ift_jax.inspection.decontamination",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--module", action="append", default=[], help="a module of tasks")
    parser.add_argument("--root", default="", help="given to the modules, as data.root")
    parser.add_argument("--train", action="append", required=True, metavar="TASK[:SPLIT]")
    parser.add_argument(
        "--against", action="append", required=True, metavar="TASK[:SPLIT] | FILE:FIELD[,FIELD]"
    )
    parser.add_argument("--report", help="where to write the whole report, as JSON")
    parser.add_argument("--filtered", help="where to write what is left, for tasks.jsonl")
    parser.add_argument(
        "--drop-sets", action="store_true", help="write no file of contaminated tasks"
    )
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--token-share", type=float, default=TOKEN_SHARE)
    parser.add_argument("--set-share", type=float, default=SET_SHARE)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = _parser().parse_args(arguments)
    try:
        with contextlib.ExitStack() as outputs:
            outputs.enter_context(file_output(args.report, "--report"))
            if args.filtered:
                outputs.enter_context(new_output(args.filtered, "--filtered"))
            _run(args)
    except (UserError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


def _run(args: argparse.Namespace) -> None:
    for name in args.module:
        importlib.import_module(name).register(args.root)
    report = contamination(
        args.train, args.against, n=args.n, token_share=args.token_share, set_share=args.set_share
    )
    _print_report(report)
    if args.report:
        write_output(args.report, json.dumps(report, indent=1).encode())
    if args.filtered:
        for name, kept in write_filtered(report, args.filtered, args.drop_sets).items():
            print(f"{name}: {kept:,} examples written")


def _print_report(report: dict[str, Any]) -> None:
    for name, found in report["tasks"].items():
        for evaluation, figures in found["sets"].items():
            contaminated = " (contaminated)" if figures["contaminated"] else ""
            print(
                f"{name} / {evaluation}: {figures['share']:.2%} of {figures['instances']:,} "
                f"instances overlap, {figures['training_examples']:,} training examples"
                f"{contaminated}"
            )


if __name__ == "__main__":
    main()
