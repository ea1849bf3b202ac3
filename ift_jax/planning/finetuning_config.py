"""The config of `ift train --model MODEL --data DATA`: what the user gave, and what was chosen."""

import dataclasses
import os
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax

from ift_jax.checkpoint.init_from import resolve_init
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config import data_items
from ift_jax.config.files import unchecked, with_overrides
from ift_jax.config.schema import Config, DataConfig, DecoderConfig, LoraConfig, ModelConfig
from ift_jax.config.unread_fields import check_all_is_read
from ift_jax.errors import UserError
from ift_jax.io.json_reader import read_json_object
from ift_jax.models.model import build_model
from ift_jax.planning.finetuning import LENGTHS, Choice, Facts, choose, choose_format
from ift_jax.preparation.sample_lengths import LengthSample, sample_lengths
from ift_jax.text.tokenizers.load import load_tokenizer

_WIDTH = 78  # What is printed fits a terminal of 80 columns.


def given_config(model: str, data: str, lora_rank: int, overrides: Sequence[str]) -> Config:
    """The config of what the user gave; all other fields have their defaults.

    Args:
        model: A Hugging Face folder, or the workdir of a run.
        data: Items of `ift_jax.config.data_items`.
        lora_rank: The rank of the adapters; 0 trains all parameters.
        overrides: Items of the form "--config.section.field=value".

    Raises:
        UserError: The model or the data is not there, or an override is wrong.
    """
    model_type = type(open_model_source(model).config.model)
    config = Config(
        model=model_type(init_from=os.path.abspath(model)),
        data=DataConfig(
            modules=(data_items.MODULE,),
            root=data_items.absolute(data),
            mixture=data_items.MIXTURE,
        ),
        lora=LoraConfig(rank=lora_rank),
    )
    return unchecked(with_overrides(config, overrides))


def finetuning_config(
    config: Config, given: Collection[str], log: Callable[[str], None]
) -> tuple[Config, list[Choice]]:
    """Chooses what the user did not set.

    The devices are asked for their number and memory: all processes of a run have joined.

    Args:
        config: The result of `given_config`.
        given: The dotted names of the fields that the user set.
        log: Called with a line that says what takes time.

    Returns:
        The whole config, checked and with `model.init_from` resolved, and what was chosen.

    Raises:
        UserError: The model or the data cannot be used.
    """
    source = open_model_source(config.model.init_from)
    _check_lengths(source.config.model, given)
    has_template = bool(source.tokenizer().chat_template)
    choices = choose_format(source.config.model, has_template, config, given)
    config = with_choices(config, choices)
    log("reading a sample of the data, to choose the lengths of rows")
    measured = _with_longest_rows(resolve_init(_with_any_length(config, source.config.model)))
    tokenizer = load_tokenizer(measured.tokenizer.path, measured.tokenizer)
    facts = _facts(measured, sample_lengths(measured, tokenizer))
    choices += choose(facts, config, given)
    config = resolve_init(with_choices(config, choices))
    check_all_is_read(config)
    return config, choices


def _check_lengths(model: ModelConfig, given: Collection[str]) -> None:
    """Raises a UserError for a given length of rows that the model's architecture does not have."""
    one, two = ["data.max_length"], ["data.inputs_length", "data.targets_length"]
    is_decoder = isinstance(model, DecoderConfig)
    unread, read = (two, one) if is_decoder else (one, two)
    for name in unread:
        if name in given:
            kind = "a decoder" if is_decoder else "an encoder-decoder"
            expected = " and ".join(read)
            raise UserError(f"config.{name}: {kind} does not read it; expected {expected}")


def _with_any_length(config: Config, model: ModelConfig) -> Config:
    """A config that can be checked before the run's lengths are chosen."""
    is_decoder = isinstance(model, DecoderConfig)
    names = ["max_length"] if is_decoder else ["inputs_length", "targets_length"]
    data = config.data
    if model.max_length:
        shorter = {name: min(getattr(data, name), model.max_length) for name in names}
        data = dataclasses.replace(data, **shorter)
    train = dataclasses.replace(config.train, steps=1, epochs=0.0)
    return dataclasses.replace(config, data=data, train=train)


def _with_longest_rows(config: Config) -> Config:
    """A config by which no example of the sample is too long."""
    longest = LENGTHS[-1]
    data = dataclasses.replace(
        config.data,
        max_length=longest,
        inputs_length=longest,
        targets_length=longest,
        over_length="drop",
    )
    return dataclasses.replace(config, data=data)


def _facts(config: Config, sample: LengthSample) -> Facts:
    device = jax.local_devices()[0]
    return Facts(
        model=config.model,
        family=_family(config.model.init_from),
        n_params=build_model(config.model).n_params,
        encoder_lengths=sample.encoder,
        decoder_lengths=sample.decoder,
        n_examples=sample.n_examples,
        has_eval_split=bool(config.data.eval_mixture) or config.data.eval_split in sample.splits,
        platform=device.platform,
        n_devices=jax.device_count(),
        device_bytes=_device_bytes(device),
    )


def _family(model: str) -> str:
    """The model type that a Hugging Face folder names; "" for a run's workdir."""
    kind = read_json_object(os.path.join(model, "config.json")).get("model_type", "")
    return kind if isinstance(kind, str) else ""


def _device_bytes(device: jax.Device) -> int:
    """The memory of a device; the host's devices share the memory of the machine."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit:
        return int(limit)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine // jax.local_device_count()


def with_choices(config: Config, choices: Iterable[Choice]) -> Config:
    """The config with chosen fields."""
    sections: dict[str, dict[str, Any]] = {}
    for choice in choices:
        section, _, name = choice.field.partition(".")
        sections.setdefault(section, {})[name] = choice.value
    replaced = {
        section: dataclasses.replace(getattr(config, section), **fields)
        for section, fields in sections.items()
    }
    return dataclasses.replace(config, **replaced)


def lines(choices: Iterable[Choice]) -> Iterator[str]:
    """What was chosen and why, for a terminal of 80 columns."""
    yield "chosen for this model, data and machine; --config.FIELD=VALUE sets a field:"
    for choice in choices:
        value = ", ".join(choice.value) if isinstance(choice.value, tuple) else choice.value
        text = f"{choice.field} = {value}: {choice.reason}"
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
        )
