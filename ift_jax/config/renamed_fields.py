"""Names of fields that a user may know from elsewhere, and what they are called here."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ift_jax.config.schema import Config, EncoderDecoderConfig
from ift_jax.errors import did_you_mean, offered

_NEAR = 0.5  # How near a misspelled name must be to a field.

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

# Names of other trainers -> what they are here. Names that are the same here (learning_rate,
# warmup_ratio, weight_decay, seed, gradient_accumulation_steps, max_length, ...) are found by that
# name, in whatever section they are. Hugging Face's are those of TrainingArguments, of TRL's
# SFTConfig, ModelConfig and ScriptArguments, of PEFT's LoraConfig, and of scripts in that style.
_NOTHING = ""  # It has no counterpart here.
ELSEWHERE = {
    "Hugging Face": {
        "adam_beta1": "optimizer.b1",
        "adam_beta2": "optimizer.b2",
        "adam_eps": "optimizer.eps",
        "adam_epsilon": "optimizer.eps",
        "assistant_only_loss": "format.train_on",
        "attn_implementation": "model.attention",
        "auto_find_batch_size": "train.batch_size",
        "bf16": "model.dtype",
        "chat_template": "format.template",
        "chat_template_path": "format.template",
        "completion_only_loss": "format.train_on",
        "data_seed": "seed",
        "dataloader_num_workers": _NOTHING,
        "dataset_name": "data.mixture",
        "dataset_num_proc": "data.processes",
        "dataset_test_split": "data.eval_split",
        "dataset_text_field": _NOTHING,
        "dataset_train_split": "data.split",
        "decay_type": "optimizer.decay_shape",
        "deepspeed": "mesh.fsdp",
        "do_eval": "the command ift eval",
        "do_train": "the command ift train",
        "eos_token": "tokenizer.added_tokens",
        "eval_steps": "train.eval_every",
        "eval_strategy": "train.eval_every",
        "evaluation_strategy": "train.eval_every",
        "fp16": "model.dtype",
        "generation_max_length": "evaluation.max_new_tokens",
        "generation_num_beams": "evaluation.num_beams",
        "gradient_checkpointing": "model.remat",
        "group_by_length": _NOTHING,
        "label_smoothing_factor": "loss.label_smoothing",
        "load_best_model_at_end": "train.keep_best",
        "load_in_4bit": "lora.quantize",
        "load_in_8bit": "lora.quantize",
        "logging_dir": "the flag --workdir",
        "logging_steps": "train.log_every",
        "lora_alpha": "lora.alpha",
        "lora_dropout": "lora.dropout",
        "lora_target_modules": "lora.targets",
        "lr": "optimizer.learning_rate",
        "lr_scheduler_kwargs": "optimizer.final_ratio",
        "lr_scheduler_type": "optimizer.schedule",
        "max_grad_norm": "optimizer.clip_norm",
        "max_input_length": "data.inputs_length",
        "max_seq_length": "data.max_length",
        "max_source_length": "data.inputs_length",
        "max_steps": "train.steps",
        "max_target_length": "data.targets_length",
        "max_train_samples": _NOTHING,
        "model_max_length": "data.max_length",
        "model_name": "model.init_from",
        "model_name_or_path": "model.init_from",
        "modules_to_save": _NOTHING,
        "neftune_noise_alpha": _NOTHING,
        "num_decay_steps": "optimizer.decay_steps",
        "num_train_epochs": "train.epochs",
        "optim": "optimizer.name",
        "output_dir": "the flag --workdir",
        "overwrite_output_dir": "the flag --workdir",
        "packing": "data.pack",
        "padding_free": "data.pack",
        "per_device_batch_size": "train.batch_size (rows over all devices)",
        "per_device_eval_batch_size": "evaluation.batch_size",
        "per_device_train_batch_size": "train.batch_size (rows over all devices)",
        "per_gpu_train_batch_size": "train.batch_size (rows over all devices)",
        "preprocessing_num_workers": "data.processes",
        "pretrained_model_name_or_path": "model.init_from",
        "push_to_hub": "the command ift export",
        "r": "lora.rank",
        "report_to": "automatic: metrics.jsonl and TensorBoard files in the workdir",
        "resume_from_checkpoint": "the flag --workdir: the same one resumes a run",
        "save_steps": "train.save_every",
        "save_strategy": "train.save_every",
        "save_total_limit": "train.max_to_keep",
        "target_modules": "lora.targets",
        "test_file": "data.heldout_mixture",
        "tokenizer_name": "tokenizer.path",
        "tokenizer_name_or_path": "tokenizer.path",
        "torch_dtype": "model.dtype",
        "train_batch_size": "train.batch_size",
        "train_file": "data.root",
        "use_peft": "lora.rank",
        "use_dora": "lora.dora",
        "use_rslora": "lora.rslora",
        "validation_file": "data.eval_split",
    },
    "axolotl": {
        "adapter": "lora.rank",
        "base_model": "model.init_from",
        "context_parallel_size": "mesh.sequence",
        "cosine_min_lr_ratio": "optimizer.final_ratio",
        "dataset_prepared_path": "data.store_dir",
        "dataset_processes": "data.processes",
        "datasets": "data.mixture",
        "eval_sample_packing": "data.pack",
        "evals_per_epoch": "train.eval_every",
        "flash_attention": "model.attention",
        "gradient_clipping": "optimizer.clip_norm",
        "lora_r": "lora.rank",
        "lora_target_linear": "lora.targets",
        "lr_scheduler": "optimizer.schedule",
        "micro_batch_size": "train.batch_size (rows over all devices and accumulation steps)",
        "num_epochs": "train.epochs",
        "roles_to_train": "format.train_roles",
        "sample_packing": "data.pack",
        "saves_per_epoch": "train.save_every",
        "sequence_len": "data.max_length",
        "sequence_parallel_degree": "mesh.sequence",
        "special_tokens": "tokenizer.added_tokens",
        "tensor_parallel_size": "mesh.tensor",
        "tokenizer_config": "tokenizer.path",
        "tokens": "tokenizer.added_tokens",
        "train_on_inputs": "format.train_roles",
        "val_set_size": "data.eval_split",
    },
    "LLaMA-Factory": {
        "additional_target": _NOTHING,
        "cutoff_len": "data.max_length",
        "dataset_dir": "data.root",
        "eval_dataset": "data.eval_mixture",
        "finetuning_type": "lora.rank",
        "flash_attn": "model.attention",
        "freeze_trainable_modules": "optimizer.freeze",
        "lora_rank": "lora.rank",
        "lora_target": "lora.targets",
        "mask_history": "format.train_on",
        "max_samples": _NOTHING,
        "neat_packing": "data.pack",
        "new_special_tokens": "tokenizer.added_tokens",
        "quantization_bit": "lora.quantize",
        "tokenized_path": "data.store_dir",
        "val_size": "data.eval_split",
    },
    "T5X": {
        "base_learning_rate": "optimizer.learning_rate",
        "checkpoint_period": "train.save_every",
        "dropout_rate": "model.dropout",
        "eval_period": "train.eval_every",
        "feature_lengths": "data.inputs_length and data.targets_length",
        "initial_checkpoint_path": "model.init_from",
        "loss_normalizing_factor": "loss.constant",
        "mixture_or_task_module": "data.modules",
        "mixture_or_task_name": "data.mixture",
        "model_dir": "the flag --workdir",
        "num_microbatches": "train.gradient_accumulation_steps",
        "num_model_partitions": "mesh.tensor",
        "num_partitions": "mesh.tensor",
        "task_feature_lengths": "data.inputs_length and data.targets_length",
        "total_steps": "train.steps",
        "train_steps": "train.steps",
        "use_cached": "automatic: token stores are made once",
        "vocabulary": "tokenizer.path",
    },
    "": {
        "accumulate_grad_batches": "train.gradient_accumulation_steps",
        "batch": "train.batch_size",
        "beta1": "optimizer.b1",
        "beta2": "optimizer.b2",
        "context_length": "data.max_length",
        "data_path": "data.root",
        "dataset": "data.mixture",
        "dataset_name_or_path": "data.mixture",
        "dataset_path": "data.root",
        "dp": "mesh.data",
        "ep": "mesh.expert",
        "eval_interval": "train.eval_every",
        "expert_parallel_size": "mesh.expert",
        "global_batch_size": "train.batch_size",
        "grad_accum": "train.gradient_accumulation_steps",
        "grad_accum_steps": "train.gradient_accumulation_steps",
        "grad_clip": "optimizer.clip_norm",
        "gradient_accumulation": "train.gradient_accumulation_steps",
        "iters": "train.steps",
        "log_interval": "train.log_every",
        "max_epochs": "train.epochs",
        "max_iters": "train.steps",
        "max_lr": "optimizer.learning_rate",
        "max_seq_len": "data.max_length",
        "max_tokens": "train.batch_tokens or evaluation.max_new_tokens",
        "min_lr_ratio": "optimizer.final_ratio",
        "mixed_precision": "model.dtype",
        "model_path": "model.init_from",
        "n_epochs": "train.epochs",
        "num_experts": "model.n_experts",
        "num_experts_per_tok": "model.experts_per_token",
        "precision": "model.dtype",
        "pretrained": "model.init_from",
        "router_aux_loss_coef": "loss.router_balance",
        "save_interval": "train.save_every",
        "scheduler": "optimizer.schedule",
        "seq_len": "data.max_length",
        "seq_length": "data.max_length",
        "sequence_length": "data.max_length",
        "tokenizer_path": "tokenizer.path",
        "tp": "mesh.tensor",
        "use_lora": "lora.rank",
        "wandb_project": _NOTHING,
        "warmdown_ratio": "optimizer.decay_ratio",
        "warmup": "optimizer.warmup_steps",
        "warmup_iters": "optimizer.warmup_steps",
        "wd": "optimizer.weight_decay",
        "workdir": "the flag --workdir",
    },
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
    for origin, table in ELSEWHERE.items():
        if name in table:
            whose = f"{origin}'s {name}" if origin else name
            return f"; {whose} {_here(table[name])}"
    if elsewhere := _fields_named(name):
        places = [place if "." in place else f"config.{place}" for place in elsewhere]
        return f"; {name} is {' or '.join(places)}"
    if names:
        return offered(name, names, cutoff=_NEAR)
    return did_you_mean(name, _all_names(), cutoff=_NEAR)


def _here(place: str) -> str:
    return f"is {place} here" if place else "has no counterpart here"


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
        fields = values.get(section)
        if isinstance(fields, Mapping) and name in fields:
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
