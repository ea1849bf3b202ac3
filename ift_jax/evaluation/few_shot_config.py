"""The config that evaluates an untuned model like a tuned one: few-shot, in plain text.

This is a file apart from `ift_jax.sources.few_shot` because that imports SeqIO.
"""

import dataclasses

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config, DecoderConfig, TokenizerConfig
from ift_jax.config.systems import FEW_SHOT_MODULE, modules_of, systems_table

# Tokens of a prompt for a model without a maximum length: twice GPT-3's context.
_PROMPT_LENGTH = 4096


def few_shot_config(
    config: Config, untuned: Config, tokenizer: TokenizerConfig, which: str, shots: int
) -> Config:
    """The config that evaluates a model on the `<shots>_shot` twin of a run's mixture.

    Data, seed and numbers of examples come from `config`; the model, its tokenizer and what ends an
    answer from `untuned` (as `open_model_source` gives it). Prompts are plain text (GPT-3,
    arXiv:2005.14165), as long as the model was made for. A prompt that is too long is dropped and
    counted, never truncated, because its end holds the question.

    Args:
        config: the tuned run's config.
        untuned: the other model's config.
        tokenizer: how its tokenizer is loaded (`ModelSource.tokenizer_config`).
        which: "eval" or "heldout".
        shots: solved examples per prompt, one of `ift_jax.config.systems.SHOTS`.
    """
    name, _, _ = mixture_and_split(config, which)
    twin = f"{name}_{shots}_shot"
    modules = config.data.modules or modules_of(systems_table(config.data.systems), name)
    max_length = untuned.model.max_length if isinstance(untuned.model, DecoderConfig) else 0
    data = dataclasses.replace(
        config.data,
        modules=tuple(dict.fromkeys((*modules, FEW_SHOT_MODULE))),
        eval_mixture="" if which == "heldout" else twin,
        heldout_mixture=twin if which == "heldout" else "",
        max_length=max_length or max(config.data.max_length, _PROMPT_LENGTH),
        inputs_length=max(config.data.inputs_length, _PROMPT_LENGTH),
        over_length="drop",
        max_tasks=0,  # The twins have other names, and nothing is trained.
        max_examples_per_task=0,
    )
    return dataclasses.replace(
        config,
        data=data,
        model=untuned.model,
        tokenizer=tokenizer,
        format=dataclasses.replace(config.format, template="plain", bidirectional_prefix=False),
        evaluation=dataclasses.replace(config.evaluation, stop_ids=untuned.evaluation.stop_ids),
    )
