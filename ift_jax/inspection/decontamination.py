r"""N-gram overlap of training data with evaluation sets, as Tulu 3 measured it.

    python -m ift_jax.inspection.decontamination --module tasks.tulu --root DATA \
        --train tulu3_sft:all \
        --module tasks.gsm8k.tasks --against gsm8k:test --against humaneval.jsonl:prompt \
        --report overlap.json --filtered clean/

The rules of Lambert et al. 2024 (arXiv:2411.15124, section 3.2: the numbers below were re-read in
quotations of that section, not in the paper's own file):

- only prompts are compared: each user's turn of a training example, the prompt of an evaluation
  instance; what a model was taught to answer does not count;
- a token of an evaluation instance matches where it lies in an 8-gram that the training prompt has
  too; the instance overlaps with the prompt if more than 50% of its tokens match that one prompt;
- a training set is contaminated by an evaluation set if more than 2% of that set's instances
  overlap with any of its prompts. The paper then removed whole sets (for unseen evaluations, and
  for the others where that did no harm) or else the overlapping examples.

What differs: tokens are the lower-cased words of the text, without punctuation (the paper's are
spaCy's, matched by a search engine that lower-cases and drops punctuation too); several fields of
an instance are one text whose n-grams do not cross fields, where the original averages the fields'
shares; an instance of fewer than eight tokens can never match, and is counted as `too_short`.
"""

import argparse
import collections
import dataclasses
import importlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import seqio

from ift_jax.errors import UserError
from ift_jax.sources.row_files import read_rows
from ift_jax.sources.task_examples import text_examples

N = 8
TOKEN_SHARE = 0.5  # More of an instance's tokens than this: it overlaps.
SET_SHARE = 0.02  # More of a set's instances than this: the training set is contaminated.
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Returns the lower-cased words of a text."""
    return _WORD.findall(text.lower())


def ngrams(tokens: Sequence[str], n: int = N) -> list[tuple[str, ...]]:
    """Returns every `n` tokens in a row."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


@dataclasses.dataclass
class Overlap:
    """What one evaluation set has in common with one training task.

    Attributes:
      instances: how many the evaluation set has, `too_short` of them without any n-gram.
      overlapping: instance -> the largest share of its tokens that one training prompt covers,
        of those over the threshold.
      training_examples: the training examples that any of them overlaps with.
    """

    instances: int
    too_short: int
    overlapping: dict[int, float] = dataclasses.field(default_factory=dict)
    training_examples: set[int] = dataclasses.field(default_factory=set)

    @property
    def share(self) -> float:
        """Share of the evaluation set's instances that overlap."""
        return len(self.overlapping) / self.instances


class EvaluationSet:
    """The n-grams of an evaluation set's prompts.

    Args:
      name: its name in a report.
      prompts: an instance each: the texts (fields) of its prompt.
      n: words in an n-gram.
    """

    def __init__(self, name: str, prompts: Iterable[Sequence[str]], n: int = N) -> None:
        self.name, self.n = name, n
        self.lengths: list[int] = []
        self._places: dict[tuple[str, ...], list[tuple[int, int]]] = collections.defaultdict(list)
        for instance, fields in enumerate(prompts):
            start = 0
            for field in map(words, fields):
                for i, gram in enumerate(ngrams(field, n)):
                    self._places[gram].append((instance, start + i))
                start += len(field)
            self.lengths.append(start)
        if not self.lengths:
            raise UserError(f"evaluation set {name!r} has no instance")
        long_enough = {instance for places in self._places.values() for instance, _ in places}
        self.too_short = len(self.lengths) - len(long_enough)

    def covered(self, grams: Sequence[tuple[str, ...]]) -> dict[int, float]:
        """Returns instance -> share of its tokens that a training prompt's n-grams cover."""
        if self._places.keys().isdisjoint(grams):  # Nearly always; no loop of Python's.
            return {}
        tokens: dict[int, set[int]] = collections.defaultdict(set)
        for gram in grams:
            for instance, start in self._places.get(gram, ()):
                tokens[instance].update(range(start, start + self.n))
        return {instance: len(t) / self.lengths[instance] for instance, t in tokens.items()}


def overlaps(
    examples: Iterable[Sequence[str]],
    sets: Sequence[EvaluationSet],
    token_share: float = TOKEN_SHARE,
) -> dict[str, Overlap]:
    """Compares training examples with evaluation sets.

    Args:
      examples: an example each: the texts of its user's turns.
      sets: the evaluation sets.
      token_share: an instance overlaps where more of its tokens than this are covered by one turn.
    """
    result = {s.name: Overlap(len(s.lengths), s.too_short) for s in sets}
    sizes = {s.n for s in sets}
    for index, turns in enumerate(examples):
        for prompt in map(words, turns):
            grams = {n: ngrams(prompt, n) for n in sizes}
            for evaluation in sets:
                found = result[evaluation.name]
                for instance, share in evaluation.covered(grams[evaluation.n]).items():
                    if share > token_share:
                        best = max(share, found.overlapping.get(instance, 0.0))
                        found.overlapping[instance] = best
                        found.training_examples.add(index)
    return result


def prompts_of(record: dict[str, str]) -> list[str]:
    """Returns the texts of the user's turns of a record."""
    if "messages" in record:
        return [m["content"] for m in json.loads(record["messages"]) if m["role"] == "user"]
    return [record["inputs"]]


def _tasks(spec: str, split: str) -> Iterator[tuple[str, seqio.Task, str]]:
    """The tasks of "name" or "name:split"."""
    name, _, given = spec.partition(":")
    if name in seqio.MixtureRegistry.names():
        tasks = seqio.MixtureRegistry.get(name).tasks
    elif name in seqio.TaskRegistry.names():
        tasks = [seqio.TaskRegistry.get(name)]
    else:
        raise UserError(f"{name!r} is no task, mixture or file; name its --module")
    yield from ((task.name, task, given or split) for task in tasks)


def _evaluation_set(spec: str, n: int) -> EvaluationSet:
    path, _, fields = spec.rpartition(":")
    if os.path.isfile(path):
        rows = (row.fields() for row in read_rows(path))
        names = fields.split(",")
        try:
            return EvaluationSet(spec, ([row[name] for name in names] for row in rows), n)
        except KeyError as error:
            raise UserError(f"{path}: field {error.args[0]!r} is missing") from None
    found = list(_tasks(spec, "test"))
    prompts = (prompts_of(r) for _, task, split in found for r in text_examples(task, split))
    return EvaluationSet(spec, prompts, n)


def contamination(
    train: Sequence[str],
    against: Sequence[str],
    *,
    n: int = N,
    token_share: float = TOKEN_SHARE,
    set_share: float = SET_SHARE,
) -> dict[str, Any]:
    """Reports the overlap of registered training tasks with evaluation sets.

    Args:
      train: names of tasks or mixtures, each with or without ":split" ("train").
      against: the same ("test"), or files as "path:field" or "path:field,field".
      n: words in an n-gram.
      token_share: an instance overlaps over this share of its tokens.
      set_share: a training task is contaminated over this share of a set's instances.

    Returns:
      A JSON object: the settings; and for each training task its split, the indices of the
      `examples` to leave out, whether it is `contaminated`, and the figures of each set.
    """
    sets = [_evaluation_set(spec, n) for spec in against]
    report: dict[str, Any] = {
        "settings": {"n": n, "token_share": token_share, "set_share": set_share},
        "tasks": {},
    }
    for name, task, split in [found for spec in train for found in _tasks(spec, "train")]:
        if name in report["tasks"]:
            raise UserError(f"training task {name!r} is named twice")
        result = overlaps((prompts_of(r) for r in text_examples(task, split)), sets, token_share)
        report["tasks"][name] = {
            "split": split,
            "contaminated": any(overlap.share > set_share for overlap in result.values()),
            "examples": sorted(set().union(*(o.training_examples for o in result.values()))),
            "sets": {
                name: {
                    "instances": overlap.instances,
                    "too_short": overlap.too_short,
                    "share": overlap.share,
                    "contaminated": overlap.share > set_share,
                    "training_examples": len(overlap.training_examples),
                    "overlapping": {str(k): v for k, v in sorted(overlap.overlapping.items())},
                }
                for name, overlap in result.items()
            },
        }
    return report


def write_filtered(report: dict[str, Any], folder: str, drop_sets: bool = False) -> dict[str, int]:
    """Writes the records of the reported tasks without what overlaps, a JSON lines file a task.

    `tasks.jsonl` trains on the folder. With `drop_sets` a contaminated task has no file. Returns
    task -> records written.
    """
    os.makedirs(folder, exist_ok=True)
    written = {}
    for name, found in report["tasks"].items():
        if drop_sets and found["contaminated"]:
            continue
        left_out = set(found["examples"])
        task = seqio.TaskRegistry.get(name)
        with open(os.path.join(folder, f"{name}.jsonl"), "w", encoding="utf-8") as file:
            kept = 0
            for index, record in enumerate(text_examples(task, found["split"])):
                if index not in left_out:
                    values = {k: _value(k, v) for k, v in record.items() if v}
                    file.write(json.dumps(values, ensure_ascii=False) + "\n")
                    kept += 1
        written[name] = kept
    return written


def _value(field: str, text: str) -> Any:
    return json.loads(text) if field in ("messages", "tools", "references") else text


def main(arguments: Sequence[str] | None = None) -> None:
    """Reports, and on request filters, what training data shares with evaluation sets."""
    parser = argparse.ArgumentParser(
        prog="python -m ift_jax.inspection.decontamination", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--module", action="append", default=[], help="registers tasks")
    parser.add_argument("--root", default="", help="handed to the modules, as data.root")
    parser.add_argument("--train", action="append", required=True, metavar="TASK[:SPLIT]")
    parser.add_argument(
        "--against", action="append", required=True, metavar="TASK[:SPLIT] | FILE:FIELD[,FIELD]"
    )
    parser.add_argument("--report", help="writes the whole report here, as JSON")
    parser.add_argument("--filtered", help="writes what is left here, for tasks.jsonl")
    parser.add_argument("--drop-sets", action="store_true", help="no file of contaminated tasks")
    parser.add_argument("--n", type=int, default=N)
    parser.add_argument("--token-share", type=float, default=TOKEN_SHARE)
    parser.add_argument("--set-share", type=float, default=SET_SHARE)
    given = parser.parse_args(arguments)
    try:
        for name in given.module:
            importlib.import_module(name).register(given.root)
        report = contamination(
            given.train,
            given.against,
            n=given.n,
            token_share=given.token_share,
            set_share=given.set_share,
        )
        for name, found in report["tasks"].items():
            for evaluation, figures in found["sets"].items():
                print(
                    f"{name} / {evaluation}: {figures['share']:.2%} of {figures['instances']:,} "
                    f"instances overlap, {figures['training_examples']:,} training examples"
                    f"{' (contaminated)' if figures['contaminated'] else ''}"
                )
        if given.report:
            with open(given.report, "w", encoding="utf-8") as file:
                json.dump(report, file, indent=1)
        if given.filtered:
            for name, kept in write_filtered(report, given.filtered, given.drop_sets).items():
                print(f"{name}: {kept:,} examples written")
    except (UserError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
