"""A run's evaluation, asked of a model that was never tuned: behind solved examples, in plain text.

Apart from `ift_jax.sources.few_shot`, which imports SeqIO.
"""

import dataclasses

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.config.systems import FEW_SHOT_MODULE, modules_of, systems_table

_ROOM = 4096  # Tokens of a prompt where the model says no bound: twice GPT-3's context.


def in_context_config(config: Config, untuned: Config, which: str, shots: int) -> Config:
    """The config that evaluates a model on the `<shots>_shot` twin of a run's mixture.

    Data, seed and numbers are those of `config`; model, tokenizer and what ends an answer those of
    `untuned` (as `open_model_source` gives them). Prompts are plain text (GPT-3,
    arXiv:2005.14165), as long as the model was made for. A prompt that is too long is dropped and
    counted, never cut, because its end holds the question.

    Args:
      config: the tuned run's.
      untuned: the other model's.
      which: "eval" or "heldout".
      shots: solved examples a prompt, one of `ift_jax.sources.few_shot.SHOTS`.
    """
    name, _, _ = mixture_and_split(config, which)
    twin = f"{name}_{shots}_shot"
    modules = config.data.modules or modules_of(systems_table(config.data.systems), name)
    room = untuned.model.max_length if isinstance(untuned.model, DecoderConfig) else 0
    data = dataclasses.replace(
        config.data,
        modules=tuple(dict.fromkeys((*modules, FEW_SHOT_MODULE))),
        eval_mixture="" if which == "heldout" else twin,
        heldout_mixture=twin if which == "heldout" else "",
        max_length=room or max(config.data.max_length, _ROOM),
        inputs_length=max(config.data.inputs_length, _ROOM),
        over_length="drop",
    )
    return dataclasses.replace(
        config,
        data=data,
        model=untuned.model,
        tokenizer=untuned.tokenizer,
        format=dataclasses.replace(config.format, template="plain", bidirectional_prefix=False),
        evaluation=dataclasses.replace(config.evaluation, stop_ids=untuned.evaluation.stop_ids),
    )
