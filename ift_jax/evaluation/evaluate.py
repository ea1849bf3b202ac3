"""Answers to unseen examples, made freely or chosen, scored with each task's own metrics."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.metrics import exact_match, majority_baseline, metric_by_name
from ift_jax.models.model import Params


def evaluate(text_generator: TextGenerator, params: Params, view: Mixture) -> dict[str, Any]:
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
        for index in range(min(text_generator.config.evaluation.examples, len(store)))
    ]
    prompts = [text_generator.prompt(store, index) for _, store, index in places]
    choices = [store.choices(index) for _, store, index in places]
    free = [i for i, given in enumerate(choices) if not given]
    ranked = [i for i, given in enumerate(choices) if given]
    found: dict[int, dict[str, Any]] = {}
    if free:
        outputs = text_generator.generate(params, [prompts[i] for i in free])
        text, stopped = text_generator.text, text_generator.stopped
        found |= {
            i: {"answer": text(o), "stopped": stopped(o)}
            for i, o in zip(free, outputs, strict=True)
        }
    if ranked:
        asked = [
            Choices(prompts[i], [ids for _, ids in choices[i]], int(store.prefix_lengths[index]))
            for i in ranked
            for _, store, index in (places[i],)
        ]
        scores = log_probs(text_generator.model, params, text_generator.config, asked)
        for i, of_choices in zip(ranked, scores, strict=True):
            texts = [text for text, _ in choices[i]]
            chosen = texts[int(np.argmax(of_choices))]
            found[i] = {"answer": chosen, "choices": texts, "scores": of_choices}
    answers: list[dict[str, Any]] = [
        {
            "task": task,
            "index": int(store.indices[index]),
            "prompt": text_generator.tokenizer.decode(prompts[i]),
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
                tasks[name] |= metric_by_name(path)(references, texts)
        if group := store.manifest.get("group"):
            groups.setdefault(group, []).append(score["exact_match"])
    overall = {"examples": sum(scores["examples"] for scores in tasks.values())}
    for metric in sorted({metric for scores in tasks.values() for metric in scores} - {"examples"}):
        values = [scores[metric] for scores in tasks.values() if metric in scores]
        overall[metric] = sum(values) / len(values)
    quartiles = {
        name: dict(
            zip(
                ("lower", "median", "upper"), np.percentile(of, (25, 50, 75)).tolist(), strict=True
            ),
            tasks=len(of),
        )
        for name, of in groups.items()
        if len(of) > 1
    }
    return {"tasks": tasks, "overall": overall, "groups": quartiles, "answers": answers}


def table(title: str, result: Mapping[str, Any]) -> list[str]:
    """The scores as lines of text: a task a line, the means, then data sets over templates."""
    rows = [*sorted(result["tasks"].items()), ("mean over tasks", result["overall"])]
    width = max(len(name) for name, _ in rows)
    columns = {
        "exact_match": "exact match",
        "accuracy": "accuracy of choice",
        "baseline": "commonest answer",
        "rouge_l": "ROUGE-L",
    }
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
