"""Sections of a model card on what a model was trained: data, format, hyperparameters."""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.checkpoint.lineage import label
from ift_jax.checkpoint.open_model import WorkdirSource
from ift_jax.config import data_items
from ift_jax.config.learning_rate import with_learning_rate
from ift_jax.config.schema import Config
from ift_jax.errors import counted
from ift_jax.io import hub_datasets
from ift_jax.report.card.facts import RunFacts
from ift_jax.report.card.markdown import code, table

_MOST_TASKS = 40  # If there are more, those with the most trained tokens are listed.
_UNKNOWN = "not recorded"  # By the version that the run began with.


def sections(source: WorkdirSource, facts: RunFacts) -> Iterator[str]:
    """Yield the sections on a run."""
    yield _data(source, facts)
    yield _format(source.config)
    yield _hyperparameters(source, facts)


def hub_datasets_of(config: Config) -> list[str]:
    """Return the names of the hub's data sets that a run read."""
    references = [
        hub_datasets.parse_reference(item)
        for item, _ in _items(config)
        if item.startswith(hub_datasets.SCHEME)
    ]
    return list(dict.fromkeys(reference.name for reference in references))


def public_sources(config: Config) -> str:
    """Return `data.root` without the folders of this machine."""
    return ",".join(public_path(item) + weight for item, weight in _items(config))


def public_path(path: str) -> str:
    """Return the last part of a path; a data set of the hub as it is."""
    return path if path.startswith(hub_datasets.SCHEME) else label(path)


def _items(config: Config) -> list[tuple[str, str]]:
    """Return the items of `data.root`, each with its weight as "=2" or ""."""
    root = config.data.root
    if data_items.MODULE not in config.data.modules:
        return [(root, "")] if root else []
    return data_items.split_items(root)


def _data(source: WorkdirSource, facts: RunFacts) -> str:
    config = source.config
    mixtures = facts.record.inputs.get("mixtures", {})
    train = mixtures.get("train", {})
    parts = ["## Training data"]
    mixture = f"The mixture {code(config.data.mixture)}, split {code(config.data.split)}"
    root = public_sources(config)
    parts.append(f"{mixture}, read from {code(root)}." if root else f"{mixture}.")
    if facts.record.inputs_since:
        parts.append(
            f"The table is of the data since step {facts.record.inputs_since:,}; before that the "
            "run read others."
        )
    if train:
        parts.append(_data_table(train))
    else:
        parts.append(f"Its examples: {_UNKNOWN}.")
    unseen = {"eval": "of the same tasks for evaluation", "heldout": "of tasks never trained"}
    others = [
        f"{counted(sum(task['examples'] for task in mixtures[name].values()), 'example')} {what}"
        for name, what in unseen.items()
        if name in mixtures
    ]
    if others:
        parts.append(f"Not trained on: {', '.join(others)}.")
    return "\n\n".join(parts)


def _data_table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for each task, and their sums."""
    total_rate = sum(task["rate"] for task in tasks.values())
    largest = sorted(tasks, key=lambda name: -tasks[name].get("trained_tokens", 0))
    shown = [name for name in tasks if name in set(largest[:_MOST_TASKS])]
    rows = [
        _data_row(code(name), [tasks[name]], tasks[name]["rate"] / total_rate) for name in shown
    ]
    left = [name for name in tasks if name not in shown]
    if left:
        share = sum(tasks[name]["rate"] for name in left) / total_rate
        rows.append(_data_row(f"{len(left):,} more tasks", [tasks[name] for name in left], share))
    if len(tasks) > 1:
        rows.append(_data_row("all", list(tasks.values()), 1.0))
    heads = ["task", "mixing rate", "examples", "trained tokens", "truncated", "dropped"]
    return table(heads, rows)


def _data_row(name: str, tasks: list[Mapping[str, Any]], share: float) -> list[str]:
    examples = f"{sum(task['examples'] for task in tasks):,}"
    if any("dropped" not in task for task in tasks):
        return [name, f"{share:.1%}", examples, *[_UNKNOWN] * 3]
    dropped = Counter[str]()
    for task in tasks:
        dropped.update(task["dropped"])
    reasons = ", ".join(f"{code(reason)} {n:,}" for reason, n in sorted(dropped.items()))
    sums = [f"{sum(task[key] for task in tasks):,}" for key in ("trained_tokens", "truncated")]
    return [name, f"{share:.1%}", examples, *sums, reasons or "0"]


def _format(config: Config) -> str:
    """Say how a conversation becomes text, and what of it is trained."""
    fmt = config.format
    named = code(fmt.template)
    if "{%" in fmt.template or "{{" in fmt.template:
        named = "given as text"
    elif fmt.template == "model":
        named = "the base model's own"
    text = f"## Format\n\nTemplate: {named}, which is `chat_template.jinja` in this folder."
    defaults = type(fmt)()
    changed = [
        f"{code(f'format.{field.name}')} is {code(_plain(getattr(fmt, field.name)))}"
        for field in dataclasses.fields(fmt)
        if field.name != "template" and getattr(fmt, field.name) != getattr(defaults, field.name)
    ]
    if changed:
        return f"{text} Options that differ from the defaults: {', '.join(changed)}."
    return (
        f"{text} Trained are the assistant's texts and the tokens that end them, unless a row says "
        "otherwise."
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _hyperparameters(source: WorkdirSource, facts: RunFacts) -> str:
    config = with_learning_rate(source.config)
    rows = [(name, value) for name, value in _settings(config) if value]
    rows += _lengths(source, facts)
    return f"## Training\n\n{table(['', ''], rows)}"


def _settings(config: Config) -> Iterator[tuple[str, str]]:
    optimizer, train, lora = config.optimizer, config.train, config.lora
    if lora.rank:
        kind = "DoRA" if lora.dora else "LoRA"
        trained = f"{kind} of rank {lora.rank}, alpha {lora.alpha:g}"
        trained += ", rank-stabilized" if lora.rslora else ""
        trained += f", dropout {lora.dropout:g}" if lora.dropout else ""
        trained += f", beside {lora.quantize} weights" if lora.quantize != "none" else ""
        others = ", ".join((*lora.rank_pattern, *lora.alpha_pattern))
        trained += f" (other ranks and alphas: {code(others)})" if others else ""
        yield "trained parameters", f"{trained}, on {code(lora.targets)}"
    elif optimizer.freeze:
        yield "trained parameters", f"all but {code(optimizer.freeze)}"
    else:
        yield "trained parameters", "all"
    decay = f", weight decay {optimizer.weight_decay:g}" if optimizer.weight_decay else ""
    clip = f", gradients clipped at {optimizer.clip_norm:g}" if optimizer.clip_norm else ""
    yield "optimizer", f"{optimizer.name}{decay}{clip}"
    warmup = _phase(optimizer.warmup_steps, optimizer.warmup_ratio)
    schedule = f"{optimizer.learning_rate:g}, {optimizer.schedule}, warm-up of {warmup}"
    if optimizer.schedule == "wsd":
        decay = _phase(optimizer.decay_steps, optimizer.decay_ratio)
        schedule += f", {optimizer.decay_shape} decay in the last {decay}"
    yield "learning rate", schedule
    batch = f"{counted(train.batch_size, 'row')}" if train.batch_size else ""
    lengths = " + ".join(f"{length:,}" for length in config.row_lengths if length)
    packed = "several examples share a row" if config.data.pack else "one example a row"
    yield "batch", f"{batch or f'{train.batch_tokens:,} tokens'}"
    yield "row", f"{lengths} tokens; {packed}"
    if config.preference.trains_pairs:
        preference = config.preference
        yield (
            "loss",
            f"preference loss {preference.loss}, beta {preference.beta:g}, mean over pairs",
        )
    else:
        yield "loss", f"mean over {config.loss.normalization}"
    yield "number type", f"{config.model.dtype}; parameters float32"
    yield "dropout", f"{config.model.dropout:g}" if config.model.dropout else ""
    yield "seed", str(config.seed)


def _phase(steps: int, share: float) -> str:
    """Return how long a phase of the learning rate is, as the config says it."""
    return counted(steps, "step") if steps else f"{share:.0%} of the steps"


def _lengths(source: WorkdirSource, facts: RunFacts) -> Iterator[tuple[str, str]]:
    finished_at = facts.record.finished_at
    if finished_at == source.step:
        end = ", the last of the run"
    elif finished_at is None:
        end = ", of a run that had not ended"
    else:
        end = f", of a run that ended at {finished_at:,}"
    yield "steps", f"{source.step:,}{end}"
    if source.config.train.epochs and not source.config.train.steps:
        yield "epochs of the whole run", f"{source.config.train.epochs:g}"
    if facts.trained_tokens is not None:
        yield "trained tokens seen", f"{facts.trained_tokens:,}"
