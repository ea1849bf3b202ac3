"""Names of fields that a user may know from elsewhere, and what they are called here."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ift_jax.config.schema import Config, EncoderDecoderConfig

# Fields of this project that had other names before: section.field -> what it is now.
RENAMED = {
    "data.row_length": "data.max_length",
    "data.encoder_length": "data.inputs_length",
    "data.decoder_length": "data.targets_length",
    "data.max_refused_share": "data.max_dropped_fraction",
    "train.batch_rows": "train.batch_size",
    "train.microbatches": "train.gradient_accumulation_steps",
    "train.keep": "train.max_to_keep",
}

# Arguments of Hugging Face's TrainingArguments, TRL's SFTConfig, ModelConfig and ScriptArguments,
# PEFT's LoraConfig, and the options of scripts in that style. Those that have the same name here
# (learning_rate, warmup_ratio, weight_decay, seed, gradient_accumulation_steps, max_length, ...)
# are found by that name, in whatever section they are.
HUGGING_FACE = {
    "adam_beta1": "optimizer.b1",
    "adam_beta2": "optimizer.b2",
    "adam_epsilon": "optimizer.eps",
    "assistant_only_loss": "format.train_on",
    "attn_implementation": "model.attention",
    "auto_find_batch_size": "train.batch_size",
    "bf16": "model.dtype",
    "chat_template": "format.template",
    "chat_template_path": "format.template",
    "cutoff_len": "data.max_length",
    "data_path": "data.root",
    "data_seed": "seed",
    "dataset_name": "data.mixture",
    "dataset_num_proc": "data.processes",
    "dataset_test_split": "data.eval_split",
    "dataset_train_split": "data.split",
    "eval_steps": "train.eval_every",
    "fp16": "model.dtype",
    "generation_max_length": "evaluation.max_new_tokens",
    "gradient_checkpointing": "model.remat",
    "label_smoothing_factor": "loss.label_smoothing",
    "load_best_model_at_end": "train.keep_best",
    "logging_steps": "train.log_every",
    "lora_alpha": "lora.alpha",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_target_modules": "lora.targets",
    "lr": "optimizer.learning_rate",
    "lr_scheduler_type": "optimizer.schedule",
    "max_grad_norm": "optimizer.clip_norm",
    "max_input_length": "data.inputs_length",
    "max_seq_len": "data.max_length",
    "max_seq_length": "data.max_length",
    "max_source_length": "data.inputs_length",
    "max_steps": "train.steps",
    "max_target_length": "data.targets_length",
    "model_max_length": "data.max_length",
    "model_name": "model.init_from",
    "model_name_or_path": "model.init_from",
    "num_epochs": "train.epochs",
    "num_train_epochs": "train.epochs",
    "optim": "optimizer.name",
    "output_dir": "the flag --workdir",
    "packing": "data.pack",
    "per_device_eval_batch_size": "evaluation.batch_size",
    "per_device_train_batch_size": "train.batch_size (rows over all devices)",
    "per_gpu_train_batch_size": "train.batch_size (rows over all devices)",
    "preprocessing_num_workers": "data.processes",
    "pretrained_model_name_or_path": "model.init_from",
    "resume_from_checkpoint": "the flag --workdir: the same one resumes a run",
    "save_steps": "train.save_every",
    "save_total_limit": "train.max_to_keep",
    "target_modules": "lora.targets",
    "tokenizer_name": "tokenizer.path",
    "tokenizer_name_or_path": "tokenizer.path",
    "torch_dtype": "model.dtype",
    "train_batch_size": "train.batch_size",
    "train_file": "data.root",
    "use_rslora": "lora.rslora",
}


def explain_unknown(name: str, siblings: Iterable[str]) -> str:
    """Says what a field that does not exist may have meant.

    Args:
        name: The field as it was typed, without its section.
        siblings: The fields of the section in which it was typed; empty if that is not known.

    Returns:
        The end of a message, such as "; Hugging Face's num_train_epochs is train.epochs here".
    """
    names = list(siblings)
    for before, now in RENAMED.items():
        if name == before.partition(".")[2]:
            return f"; {name} was renamed to {now}"
    if name in HUGGING_FACE:
        return f"; Hugging Face's {name} is {HUGGING_FACE[name]} here"
    if elsewhere := _fields_named(name):
        places = [place if "." in place else f"config.{place}" for place in elsewhere]
        return f"; {name} is {' or '.join(places)}"
    close = difflib.get_close_matches(name, names or _all_names(), n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the fields are {', '.join(names)}" if names else ""


def renamed_in(values: Mapping[str, Any]) -> dict[str, str]:
    """The former names that a nested config holds, such as an old run's `config.json`.

    Args:
        values: Section -> field -> value.

    Returns:
        Former name -> present name, each with its section.
    """
    found = {}
    for before, now in RENAMED.items():
        section, _, name = before.partition(".")
        if name in values.get(section, {}):
            found[before] = now
    return found


def _places() -> Iterator[tuple[str, str]]:
    """Name and full name of every section and field, for both architectures."""
    for config in (Config(), Config(model=EncoderDecoderConfig())):
        for section_field in dataclasses.fields(config):
            yield section_field.name, section_field.name
            section = getattr(config, section_field.name)
            if dataclasses.is_dataclass(section):
                for field in dataclasses.fields(section):
                    yield field.name, f"{section_field.name}.{field.name}"


def _all_names() -> list[str]:
    return list(dict.fromkeys(name for name, _ in _places()))


def _fields_named(name: str) -> list[str]:
    """The places of all fields with this name."""
    return list(dict.fromkeys(place for found, place in _places() if found == name))
