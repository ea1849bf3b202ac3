"""Answering and scoring benchmarks with one model."""

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.decoding import Options
from ift_jax.errors import UserError
from ift_jax.evaluation.benchmarks.answering import (
    Model,
    Work,
    generate_answers,
    rank_answers,
)
from ift_jax.evaluation.benchmarks.answers_file import AnswersFile
from ift_jax.evaluation.benchmarks.base import Answered, Benchmark, Item, Ratio, Scores
from ift_jax.evaluation.benchmarks.data_files import DataFiles
from ift_jax.evaluation.benchmarks.estimates import estimate, mean_of_groups
from ift_jax.evaluation.benchmarks.prompt_encoder import PromptEncoder, PromptStyle
from ift_jax.evaluation.benchmarks.registry import Chosen
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.io.files import write
from ift_jax.io.stop_signals import Stopped, never


@dataclasses.dataclass(frozen=True)
class Settings:
    """How benchmarks are run.

    Attributes:
        style: How prompts are written.
        shots: Solved examples in a prompt; None for each benchmark's own number.
        limit: The most items of a benchmark, or of each of its tasks; 0 for all.
        max_new_tokens: The most tokens of an answer; 0 for each benchmark's own number.
        batch_size: Prompts, or choices, that are run together.
        seed: The seed of sampled answers.
    """

    style: PromptStyle = PromptStyle()
    shots: int | None = None
    limit: int = 0
    max_new_tokens: int = 0
    batch_size: int = 16
    seed: int = 0


class Prepared(NamedTuple):
    """A benchmark whose files are read and checked."""

    chosen: Chosen
    items: list[Item]
    n_published: int  # The items of the chosen groups, before `Settings.limit`.
    shots: int


def prepare(chosen: Sequence[Chosen], data: str, settings: Settings) -> list[Prepared]:
    """Read the problems; needs no model.

    Raises:
        UserError: A file or package is missing, or the settings do not fit a benchmark.
    """
    files = DataFiles(data)
    prepared = []
    for one in chosen:
        benchmark = one.benchmark
        _require_packages(benchmark)
        if benchmark.needs_chat and not settings.style.chat:
            raise UserError(
                f"--prompt-style plain: {benchmark.name} is a conversation; expected chat"
            )
        shots = benchmark.shots if settings.shots is None else settings.shots
        items = one.of_groups(benchmark.items(files, shots, chat=settings.style.chat))
        if not items:
            raise UserError(f"--benchmark-data {data}: {benchmark.name}: its files hold no problem")
        prepared.append(Prepared(one, _first_of_groups(items, settings.limit), len(items), shots))
    return prepared


def _require_packages(benchmark: Benchmark) -> None:
    for package in benchmark.packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--benchmarks {benchmark.name}: needs the package {package}; "
                f"`launch/setup.sh {benchmark.extra}` (the extra {benchmark.extra}) installs it"
            )


def _first_of_groups(items: list[Item], limit: int) -> list[Item]:
    counts: dict[str, int] = {}
    kept = []
    for item in items:
        counts[item.group] = counts.get(item.group, 0) + 1
        if not limit or counts[item.group] <= limit:
            kept.append(item)
    return kept


def run_benchmark(
    prepared: Prepared,
    model: Model,
    settings: Settings,
    folder: str,
    *,
    model_name: str,
    stopped: Stopped = never,
    note: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Answer the items of a benchmark, continuing what is in the folder, and score them.

    Args:
        prepared: The benchmark with its items.
        model: The model.
        settings: How it is run.
        folder: The output folder: `answers/<name>.jsonl`, and files for judges.
        model_name: The name of the model for judges.
        stopped: Whether to end early.
        note: Is told what was left out.

    Returns:
        "complete"; if it is, "metrics" (`estimate`), "groups", counts, and times, too.

    Raises:
        UserError: The answers in the folder are of other settings, or no prompt fits the model.
    """
    benchmark = prepared.chosen.benchmark
    max_new_tokens = settings.max_new_tokens or benchmark.max_new_tokens
    text_generator = with_stops(model.text_generator, benchmark_stops(prepared, settings))
    model.generator.stops = text_generator.stops
    model = model._replace(text_generator=text_generator)
    encoder = PromptEncoder(text_generator, benchmark, settings.style, max_new_tokens)
    answers = AnswersFile(
        os.path.join(folder, "answers", f"{benchmark.name}.jsonl"),
        _determining(model, prepared, settings, max_new_tokens),
    )
    items = prepared.items
    if items[0].choices:
        work = rank_answers(
            model, encoder, items, answers, batch_size=settings.batch_size, stopped=stopped
        )
    else:
        work = generate_answers(
            model,
            encoder,
            items,
            answers,
            Options(max_new_tokens, seed=settings.seed),
            batch_size=settings.batch_size,
            stopped=stopped,
        )
    if len(work.too_long) == len(items):
        raise UserError(
            f"{benchmark.name}: no prompt fits the model's max_length "
            f"{getattr(model.text_generator.config.model, 'max_length', 0)} together with "
            f"{max_new_tokens} new tokens; --max-new-tokens N allows fewer"
        )
    if not _complete(items, answers, work):
        return {"complete": False, "answered": len(answers.lines), "examples": len(items)}
    _note_what_did_not_fit(benchmark.name, work, note)
    scores = _scored(prepared, answers, work)
    written = _write_outputs(prepared, answers, folder, model_name)
    return {
        "complete": True,
        **_counts(prepared, answers, work),
        **summary(items, scores),
        "outputs": written,
    }


def benchmark_stops(prepared: Prepared, settings: Settings) -> tuple[str, ...]:
    """Return the texts that end an answer of a benchmark."""
    benchmark = prepared.chosen.benchmark
    return benchmark.stops + (() if settings.style.chat else benchmark.plain_stops)


def with_stops(text_generator: TextGenerator, stops: Sequence[str]) -> TextGenerator:
    """Return the same model with other stop strings."""
    return TextGenerator(
        text_generator.config, text_generator.tokenizer, text_generator.model, stops
    )


def _determining(
    model: Model, prepared: Prepared, settings: Settings, max_new_tokens: int
) -> dict[str, Any]:
    """Return everything but the prompts that determines the answers, in JSON's types."""
    common = {
        "benchmark": prepared.chosen.benchmark.name,
        "weights": model.generator.fingerprint(),
        "format": model.text_generator.formatter.fingerprint,
    }
    if prepared.items[0].choices:
        return common
    return {
        **common,
        "stop strings": list(model.text_generator.stops.strings),
        "stop ids": list(model.text_generator.stops.ids),
        "max_new_tokens": max_new_tokens,
        "seed": settings.seed,
    }


def _complete(items: Sequence[Item], answers: AnswersFile, work: Work) -> bool:
    return all(
        item.id in work.too_long or (item.id, len(item.follow_ups)) in answers.lines
        for item in items
    )


def _note_what_did_not_fit(name: str, work: Work, note: Callable[[str], None]) -> None:
    if work.shortened:
        note(f"{name}: solved examples left out to fit the model: {len(work.shortened)} prompts")
    if work.too_long:
        note(f"{name}: {len(work.too_long)} prompts do not fit the model, and count as wrong")


def _scored(prepared: Prepared, answers: AnswersFile, work: Work) -> list[Scores]:
    """Score each item, and write the answers anew with their scores."""
    benchmark = prepared.chosen.benchmark
    scores: list[Scores] = []
    lines = []
    for item in prepared.items:
        if item.id in work.too_long:
            worst = [-1.0] * len(item.choices)
            of_item = benchmark.score_choices(item, worst) if worst else benchmark.score(item, "")
            scores.append({name: _zero(value) for name, value in of_item.items()})
            continue
        last = answers.lines[item.id, len(item.follow_ups)]
        if item.choices:
            scores.append(benchmark.score_choices(item, last["log_likelihoods"]))
        else:
            scores.append(benchmark.score(item, last["answer"]))
        lines += [
            answers.lines[item.id, turn] | _for_comparison(prepared, item, scores[-1])
            for turn in range(len(item.follow_ups) + 1)
        ]
    answers.finish(lines)
    return scores


def _zero(value: float | Ratio) -> float | Ratio:
    return Ratio(0.0, value.denominator) if isinstance(value, Ratio) else 0.0


def _for_comparison(prepared: Prepared, item: Item, scores: Scores) -> dict[str, Any]:
    """Return the fields that `ift compare` reads: task, references, and the item's own scores."""
    name = prepared.chosen.benchmark.name
    target = item.choices[item.target] if item.choices else item.target
    return {
        "task": f"{name}:{item.group}" if item.group else name,
        "references": [target] if isinstance(target, str) else [""],
        "metrics": {
            metric: value for metric, value in scores.items() if not isinstance(value, Ratio)
        },
    }


def _write_outputs(
    prepared: Prepared, answers: AnswersFile, folder: str, model_name: str
) -> list[str]:
    """Write the files for a judge, and return their paths."""
    answered = [
        Answered(
            item,
            [answers.lines[item.id, turn]["answer"] for turn in range(len(item.follow_ups) + 1)],
        )
        for item in prepared.items
        if (item.id, len(item.follow_ups)) in answers.lines
    ]
    benchmark = prepared.chosen.benchmark
    paths = []
    for name, content in benchmark.outputs(answered, model_name).items():
        path = Path(folder) / benchmark.name / name
        write(path, content)
        paths.append(str(path))
    return paths


def _counts(prepared: Prepared, answers: AnswersFile, work: Work) -> dict[str, Any]:
    counts = {
        "examples": len(prepared.items),
        "published_here": prepared.n_published,
        "shots": prepared.shots,
        "shortened": len(work.shortened),
        "too_long": len(work.too_long),
        "answered_now": work.n_answered,
        "seconds": round(work.seconds, 3),
    }
    if prepared.items[0].choices:
        return counts
    asked = {item.id for item in prepared.items}
    lines = [line for key, line in answers.lines.items() if key[0] in asked]
    return counts | {
        "unfinished": sum(not line["stopped"] for line in lines),
        "new_tokens_now": work.n_new_tokens,
    }


def summary(items: Sequence[Item], scores: Sequence[Scores]) -> dict[str, Any]:
    """Return the estimates of a benchmark and of its groups.

    Returns:
        "metrics": by name, over all items, and, with several groups, "<name>, mean of groups":
        their unweighted mean, with the standard error of a sum of independent groups. "groups":
        the same metrics by group.
    """
    names = list(scores[0]) if scores else []
    metrics = {name: estimate([of[name] for of in scores]) for name in names}
    of_group: dict[str, list[Scores]] = {}
    for item, of_item in zip(items, scores, strict=True):
        if item.group and names:
            of_group.setdefault(item.group, []).append(of_item)
    groups: dict[str, Mapping[str, Any]] = {
        group: {name: estimate([of[name] for of in several]) for name in names}
        for group, several in sorted(of_group.items())
    }
    if len(groups) > 1:
        for name in names:
            parts = [group[name] for group in groups.values()]
            metrics[f"{name}, mean of groups"] = mean_of_groups(parts)
    return {"metrics": metrics, "groups": groups}
