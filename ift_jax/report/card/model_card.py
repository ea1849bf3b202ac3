"""The text of a model card.

It says what the workdir's files say, and nothing else. Paths are shortened to their last part,
because a card is made to be published.
"""

from typing import Any

import yaml

from ift_jax.checkpoint.lineage import BaseModel, Origin, label
from ift_jax.errors import counted
from ift_jax.report.card import training, use
from ift_jax.report.card.facts import read_facts
from ift_jax.report.card.markdown import code, table
from ift_jax.report.card.results import results
from ift_jax.report.card.subject import Subject

_LICENSE = (
    "## License\n\n"
    "Not stated. Whoever publishes this model chooses a license that the terms of the base model "
    "and of the data allow, and writes it into the front matter above (`license: ...`)."
)


def model_card(subject: Subject) -> str:
    """Return the text of a card.

    Raises:
        UserError: A file of the workdir is not what was written.
    """
    front = yaml.safe_dump(_front_matter(subject), sort_keys=False, allow_unicode=True)
    sections = [f"---\n{front}---", f"# {subject.name}", _summary(subject)]
    if subject.merged:
        sections.append(_merged(subject.merged))
    if subject.run:
        facts = read_facts(subject.run)
        sections += training.sections(subject.run, facts)
        sections += results(facts, subject.run.step)
    sections += [use.how_it_was_made(subject), use.use(subject), use.versions(), _LICENSE]
    return "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(subject: Subject) -> dict[str, Any]:
    """Return the fields that the hub reads; what is not known is left out."""
    fields: dict[str, Any] = {"library_name": "peft" if subject.is_adapter else "transformers"}
    if subject.is_decoder:
        fields["pipeline_tag"] = "text-generation"
    names = list(dict.fromkeys(base.hub_name for base in subject.bases if base.hub_name))
    if names:
        fields["base_model"] = names[0] if len(names) == 1 else names
        relation = "adapter" if subject.is_adapter else "finetune"
        if subject.run or subject.merged:
            fields["base_model_relation"] = relation if subject.run else "merge"
    datasets = training.hub_datasets_of(subject.run.config) if subject.run else []
    if datasets:
        fields["datasets"] = datasets
    tags = {
        "ift_jax": True,
        "sft": subject.run is not None,
        "lora": subject.run is not None and subject.run.config.lora.rank > 0,
        "transformers": subject.is_adapter,
        "merge": subject.merged is not None,
    }
    fields["tags"] = [tag for tag, applies in tags.items() if applies]
    return fields


def _summary(subject: Subject) -> str:
    """Say in a paragraph what the model is and what it goes back to."""
    kind = "decoder" if subject.is_decoder else "encoder-decoder"
    article = "LoRA adapters for a" if subject.is_adapter else "A"
    if not subject.is_decoder:
        article += "n"
    what = f"{article} {kind} of {counted(subject.model.model.n_params, 'parameter')}"
    bases = _listed(subject.bases)
    if subject.merged:
        return f"{what}: the weighted mean of other models. Nothing was trained after that."
    if not subject.run:
        whose = bases or f"a workdir, {code(label(subject.source.path))}, that names no other model"
        return f"{what}: the weights of {whose}. Nothing was trained here."
    if not bases:
        return f"{what}, trained from fresh weights with ift_jax."
    text = f"{what}, finetuned from {bases} with ift_jax."
    runs = list(dict.fromkeys(run for base in subject.bases for run in base.runs))
    if runs:
        named = ", ".join(map(code, runs))
        text += f" Other workdirs came in between ({named}); this card is about the last run alone."
    return text


def _listed(bases: list[BaseModel]) -> str:
    """Name models; the same one once, whatever came in between."""
    named = [
        f"[{base.hub_name}](https://huggingface.co/{base.hub_name})"
        if base.hub_name
        else f"{code(base.label)} (a local copy, whose name on the hub is not known)"
        for base in bases
    ]
    return ", ".join(dict.fromkeys(named))


def _merged(origin: Origin) -> str:
    rows = [
        (f"{model.weight:.4g}", code(label(model.path)), model.step or "")
        for model in origin.models
    ]
    return f"## Merged models\n\n{table(['weight', 'model', 'step'], rows)}"
