"""Sections of a model card on how a model was made, and how it is loaded."""

import dataclasses
import importlib.metadata
import json
import platform
import shlex

from ift_jax.checkpoint.lineage import label
from ift_jax.checkpoint.run_description import YAML_FILE, yaml_text
from ift_jax.config.schema import Config
from ift_jax.report.card.markdown import block
from ift_jax.report.card.subject import Subject
from ift_jax.report.card.training import public_path, public_sources
from ift_jax.version import __version__

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


def how_it_was_made(subject: Subject) -> str:
    """Show the commands, and the config of the run."""
    workdir = label(subject.source.path)
    commands = []
    if subject.run:
        commands.append(["ift", "train", "--config", YAML_FILE, "--workdir", workdir])
    export = ["ift", "export", "--workdir", workdir, "--output", subject.name]
    if subject.run:
        export += ["--step", str(subject.run.step)]
    commands.append([*export, *subject.flags])
    parts = ["## How it was made", block("\n".join(map(shlex.join, commands)), "bash")]
    if subject.run:
        text = yaml_text(public_config(subject.run.config, _began_from(subject)))
        parts.append(
            f"<details><summary><code>{YAML_FILE}</code>: the fields that differ from the "
            f"defaults; paths are shortened</summary>\n\n{block(text, 'yaml')}\n\n</details>"
        )
    return "\n\n".join(parts)


def _began_from(subject: Subject) -> str:
    """Return what the run's `model.init_from` is called outside of this machine."""
    is_base = len(subject.bases) == 1 and not subject.bases[0].runs
    return subject.base_name if is_base else ""


def public_config(config: Config, base: str) -> Config:
    """Return a config without the folders of this machine.

    Args:
        config: The run's config.
        base: What the model that it began from is called; "": the last part of its path.
    """
    tokenizer, train, data, model = config.tokenizer, config.train, config.data, config.model
    return dataclasses.replace(
        config,
        tokenizer=dataclasses.replace(tokenizer, path=_short(tokenizer.path)),
        train=dataclasses.replace(train, compile_cache=_short(train.compile_cache)),
        data=dataclasses.replace(
            data, root=public_sources(config), store_dir=_short(data.store_dir)
        ),
        model=dataclasses.replace(
            model, init_from=(base or _short(model.init_from)) if model.init_from else ""
        ),
    )


def _short(path: str) -> str:
    return public_path(path) if path else ""


def use(subject: Subject) -> str:
    """Show the code that loads the folder and answers a question."""
    model_class = "AutoModelForCausalLM" if subject.is_decoder else "AutoModelForSeq2SeqLM"
    lines = [f"from transformers import {model_class}, AutoTokenizer"]
    if subject.is_adapter:
        lines.insert(0, "from peft import PeftModel")
    lines += [
        "",
        f"folder = {_text(subject.name)}  # This folder, or its name on the hub.",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
    if subject.is_adapter:
        base = subject.base_name or "BASE"
        lines += [
            f"base = {model_class}.from_pretrained({_text(base)})  # The base model.",
            "model = PeftModel.from_pretrained(base, folder)",
        ]
    else:
        lines.append(f"model = {model_class}.from_pretrained(folder)")
    if subject.is_decoder:
        lines += [
            'messages = [{"role": "user", "content": "Name three colors."}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True',
            ")",
            "outputs = model.generate(**inputs, max_new_tokens=64)",
            'answer = outputs[0, inputs["input_ids"].shape[1] :]',
        ]
    else:
        lines += [
            'inputs = tokenizer("Name three colors.", return_tensors="pt")',
            "answer = model.generate(**inputs, max_new_tokens=64)[0]",
        ]
    lines.append("print(tokenizer.decode(answer, skip_special_tokens=True))")
    return f"## Use\n\n{block(chr(10).join(lines), 'python')}"


def _text(text: str) -> str:
    """Return a text as Python writes it between double quotes."""
    return json.dumps(text, ensure_ascii=False)


def versions() -> str:
    """List the versions that made the export."""
    rows = [("ift_jax", __version__), ("Python", platform.python_version())]
    rows += [(name, importlib.metadata.version(name)) for name in _PACKAGES]
    return f"## Versions\n\nOf the export: {', '.join(f'{n} {v}' for n, v in rows)}."
