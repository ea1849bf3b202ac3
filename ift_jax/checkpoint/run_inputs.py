"""What a run reads, by content: fingerprints of its tokenizer, its template and its stores.

A path says nothing about what is behind it: lines may have been appended to a data file, or the
file of a tokenizer replaced. So a run writes these fingerprints into its workdir when it begins,
and compares them when it is resumed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from ift_jax.config.schema import Config
from ift_jax.data.mixture import Mixture
from ift_jax.data.store import TokenStore
from ift_jax.io.files import json_digest
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.tokenizers.base import Tokenizer

Inputs = dict[str, Any]

_DIGITS = 12  # A fingerprint is kept and shown with this many.
_SHOWN_CHARACTERS = 60  # A template may be given as text, and is cut here.
# Why a store may be another one than before: parts of its key, and what they stand for.
_CAUSES = {
    "source": "its source holds other data",
    "task_modules": "the code of its task has changed",
    "formatter": "template, tokenizer or lengths have changed",
    "our_code": "another version of ift_jax prepared it",
}


def run_inputs(config: Config, tokenizer: Tokenizer, mixtures: Mapping[str, Mixture]) -> Inputs:
    """Return the fingerprints of what a run reads, as a JSON value.

    Args:
        config: The run's config.
        tokenizer: The run's tokenizer.
        mixtures: The mixtures of the run: "train", "eval" and, if there is one, "heldout".
    """
    template = PromptFormatter.from_config(config, tokenizer).template_source
    return {
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint[:_DIGITS],
            "tokens": tokenizer.vocab_size,
        },
        "template": {
            "name": config.format.template[:_SHOWN_CHARACTERS],
            "fingerprint": hashlib.sha256(template.encode()).hexdigest()[:_DIGITS],
        },
        "mixtures": {which: _tasks(mixture) for which, mixture in mixtures.items()},
    }


def _tasks(mixture: Mixture) -> dict[str, Any]:
    """Return what each task of a mixture contributes, in their order, which decides the packing."""
    tasks = zip(mixture.tasks, mixture.rates, mixture.stores, strict=True)
    return {name: {"rate": float(rate), **_store(store)} for name, rate, store in tasks}


def _store(store: TokenStore) -> dict[str, Any]:
    """Return the counts of a store, for the model card of an export, and its fingerprints."""
    manifest = store.manifest
    key = manifest.get("key", {})
    return {
        "examples": manifest["examples"],
        "trained_tokens": manifest["trained_tokens"],
        "truncated": manifest["truncated_examples"],
        "dropped": manifest["dropped"],
        "content": json_digest([manifest["variants"], manifest["sha256"]])[:_DIGITS],
        "made_from": {part: json_digest(key.get(part))[:_DIGITS] for part in _CAUSES},
    }


def changed_tokenizer(before: Inputs, now: Inputs) -> str:
    """Return how the tokenizer has changed, as a phrase; "" if it has not."""
    old, new = before["tokenizer"], now["tokenizer"]
    if old["fingerprint"] == new["fingerprint"]:
        return ""
    return (
        f"the tokenizer has changed: {old['tokens']:,} tokens (fingerprint {old['fingerprint']}) "
        f"when the run began, now {new['tokens']:,} ({new['fingerprint']})"
    )


def changed_data(before: Inputs, now: Inputs) -> Iterator[str]:
    """Yield how template and stores have changed, as phrases; what is trained comes first."""
    old_template, new_template = before["template"], now["template"]
    if old_template["fingerprint"] != new_template["fingerprint"]:
        yield (
            f"the template has changed: {old_template['name']!r} (fingerprint "
            f"{old_template['fingerprint']}) when the run began, now {new_template['name']!r} "
            f"({new_template['fingerprint']})"
        )
    mixtures = before["mixtures"].items()
    for which, old_tasks in sorted(mixtures, key=lambda item: item[0] != "train"):
        new_tasks = now["mixtures"].get(which, {})
        for name in new_tasks.keys() - old_tasks.keys():
            yield f"task {name!r} is new in the {which} mixture"
        for name, old in old_tasks.items():
            if name not in new_tasks:
                yield f"task {name!r} is gone from the {which} mixture"
            elif phrase := _changed_task(old, new_tasks[name]):
                yield f"task {name!r} of the {which} mixture {phrase}"
        if old_tasks.keys() == new_tasks.keys() and list(old_tasks) != list(new_tasks):
            yield f"the tasks of the {which} mixture have another order"


def _changed_task(old: dict[str, Any], new: dict[str, Any]) -> str:
    """Return how a task has changed, as the end of a phrase; "" if it has not."""
    if old["content"] == new["content"]:
        rates = old["rate"], new["rate"]
        return "" if rates[0] == rates[1] else "had the rate {:g}, now {:g}".format(*rates)
    causes = [
        cause for part, cause in _CAUSES.items() if old["made_from"][part] != new["made_from"][part]
    ]
    why = causes[0] if causes else "the same source and code gave other examples"
    return (
        f"had {old['examples']:,} examples (fingerprint {old['content']}) when the run began, now "
        f"{new['examples']:,} ({new['content']}): {why}"
    )
