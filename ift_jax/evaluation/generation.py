"""Answers to unseen examples, made freely or chosen, scored with each task's own metrics."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ift_jax.checkpoint.source import open_source
from ift_jax.checkpoint.trained import load_trained
from ift_jax.config import Config
from ift_jax.data.store import TokenStore
from ift_jax.data.view import MixtureView
from ift_jax.decoding import Generator, Options, Stops
from ift_jax.evaluation.metrics import exact_match, majority_baseline
from ift_jax.evaluation.rank import Choices, log_probs
from ift_jax.models.definition import Model, Params
from ift_jax.text.formats import Formatter
from ift_jax.text.tokenizers import Tokenizer


class Answerer:
    """Prompts in, answers out, in a run's format, ended by its `stop_ids` and `stop_strings`."""

    def __init__(
        self, config: Config, tokenizer: Tokenizer, model: Model, stop_strings: Sequence[str] = ()
    ):
        """Compiles nothing yet."""
        self.config, self.tokenizer, self.model = config, tokenizer, model
        self.formatter = Formatter.from_config(config, tokenizer)
        # A control token is no part of the text in which strings are looked for.
        special = tokenizer.special_tokens
        asked = [special[s] for s in stop_strings if s in special]
        strings = tuple(s for s in stop_strings if s not in special)
        ids = (*self.formatter.stop_ids, *config.evaluation.stop_ids, *asked)
        self.stops = Stops(ids, strings, tokenizer.decode)
        self.text, self.stopped = self.stops.text, self.stops.stopped

    def prompt(self, store: TokenStore, index: int) -> list[int]:
        """What an example of a store is prompted with: the very ids that training saw."""
        if self.config.model.architecture == "encoder_decoder":
            return store.encoder_tokens(index).tolist()
        return store.tokens(index)[: store.prompt_length(index)].tolist()

    def generator(self, params: Params) -> Generator:
        """The model with these weights, laid out for many generations; `params` may then go."""
        return Generator(
            self.model, params, stops=self.stops, pad_id=self.tokenizer.pad_id,
            bidirectional_prompt=self.config.format.bidirectional_prefix,
        )  # fmt: skip

    def generate(self, params: Params, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The new ids of each prompt, greedily, by the config's `evaluation` section."""
        c = self.config.evaluation
        options = Options(c.max_new_tokens)
        return self.generator(params).generate(prompts, options, batch_size=c.batch_size)


def open_answerer(
    workdir: str, step: int | None = None, stop_strings: Sequence[str] = ()
) -> tuple[Answerer, Generator]:
    """The model of `open_source`, in its own format; only the weights for decoding are kept."""
    trained = load_trained(open_source(workdir, step))
    if trained.config.train.compile_cache:
        jax.config.update("jax_compilation_cache_dir", trained.config.train.compile_cache)
    answerer = Answerer(trained.config, trained.tokenizer, trained.model, stop_strings)
    return answerer, answerer.generator(trained.params)


def evaluate(answerer: Answerer, params: Params, view: MixtureView) -> dict[str, Any]:
    """Answers to the first examples of every task, and their scores.

    They are greedy; of an example with choices, the likeliest one (`evaluation.rank`).

    `config.evaluation` says how many a task; `view` should hold none that was trained on.

    Returns:
        `tasks`: name -> {"examples", "exact_match" ("accuracy" where choices were ranked),
        "baseline" (always giving the task's commonest answer), "stopped" (share that ended by
        itself), and the task's own metrics}; `overall`: their plain means over tasks; `groups`:
        quartiles of the score over the tasks, such as templates, of one data set; `answers`: one
        dict an example.
    """
    places = [
        (task, store, index)
        for task, store in zip(view.tasks, view.stores, strict=True)
        for index in range(min(answerer.config.evaluation.examples, len(store)))
    ]
    prompts = [answerer.prompt(store, index) for _, store, index in places]
    choices = [store.choices(index) for _, store, index in places]
    free = [i for i, given in enumerate(choices) if not given]
    ranked = [i for i, given in enumerate(choices) if given]
    found: dict[int, dict[str, Any]] = {}
    if free:
        outputs = answerer.generate(params, [prompts[i] for i in free])
        text, stopped = answerer.text, answerer.stopped
        found |= {i: {"answer": text(o), "stopped": stopped(o)}
                  for i, o in zip(free, outputs, strict=True)}  # fmt: skip
    if ranked:
        asked = [
            Choices(prompts[i], [ids for _, ids in choices[i]], int(store.prefix_lengths[index]))
            for i in ranked for _, store, index in (places[i],)
        ]  # fmt: skip
        scores = log_probs(answerer.model, params, answerer.config, asked)
        for i, of_choices in zip(ranked, scores, strict=True):
            texts = [text for text, _ in choices[i]]
            chosen = texts[int(np.argmax(of_choices))]
            found[i] = {"answer": chosen, "choices": texts, "scores": of_choices}
    answers: list[dict[str, Any]] = [
        {
            "task": task,
            "index": int(store.index(index)),
            "prompt": answerer.tokenizer.decode(prompts[i]),
            "references": list(store.references(index)),
            **found[i],
        }
        for i, (task, store, index) in enumerate(places)
    ]
    tasks: dict[str, dict[str, Any]] = {}
    groups: dict[str, list[float]] = {}
    for name, store, metric_fns in zip(view.tasks, view.stores, view.metric_fns, strict=True):
        mine = [answer for answer in answers if answer["task"] == name]
        if not mine:
            continue
        references, texts = ([answer[key] for answer in mine] for key in ("references", "answer"))
        score, is_ranked = exact_match(references, texts), "scores" in mine[0]
        tasks[name] = {
            "examples": len(mine),
            **({"accuracy": score["exact_match"]} if is_ranked else score),
            "baseline": majority_baseline(references),
        }
        if not is_ranked:
            tasks[name]["stopped"] = sum(answer["stopped"] for answer in mine) / len(mine)
        for path in metric_fns:  # Of SeqIO's own, this imports TensorFlow.
            if not (is_ranked and path.endswith(":exact_match")):  # That is the accuracy.
                tasks[name] |= resolve(path)(references, texts)
        if group := store.manifest.get("group"):
            groups.setdefault(group, []).append(score["exact_match"])
    overall = {"examples": sum(scores["examples"] for scores in tasks.values())}
    for metric in sorted({metric for scores in tasks.values() for metric in scores} - {"examples"}):
        values = [scores[metric] for scores in tasks.values() if metric in scores]
        overall[metric] = sum(values) / len(values)
    quartiles = {
        name: dict(zip(("lower", "median", "upper"), np.percentile(of, (25, 50, 75)).tolist(),
                       strict=True), tasks=len(of))
        for name, of in groups.items() if len(of) > 1
    }  # fmt: skip
    return {"tasks": tasks, "overall": overall, "groups": quartiles, "answers": answers}


def table(title: str, result: Mapping[str, Any]) -> list[str]:
    """The scores as lines of text: a task a line, the means, then data sets over templates."""
    rows = [*sorted(result["tasks"].items()), ("mean over tasks", result["overall"])]
    width = max(len(name) for name, _ in rows)
    columns = {"exact_match": "exact match", "accuracy": "accuracy of choice",
               "baseline": "commonest answer", "rouge_l": "ROUGE-L"}  # fmt: skip
    columns = {key: head for key, head in columns.items() if any(key in s for _, s in rows)}
    lines = [title, "  ".join(("", f"{'task':<{width}}", "examples", *columns.values()))]
    for name, s in rows:
        cells = [f"{s[key]:.3f}" if key in s else "" for key in columns]
        cells = [f"{c:>{len(head)}}" for c, head in zip(cells, columns.values(), strict=True)]
        lines.append("  ".join(("", f"{name:<{width}}", f"{s['examples']:>8}", *cells)))
    return lines + [
        f"  {name}: median {q['median']:.3f}, quartiles {q['lower']:.3f} to {q['upper']:.3f}, "
        f"over {q['tasks']} templates"
        for name, q in sorted(result["groups"].items())
    ]


def resolve(path: str) -> Callable[..., Mapping[str, float]]:
    """The function named `module:function` (SeqIO's own metrics import TensorFlow here)."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)  # A module may make names as asked.
