"""The tokenizer of a run: a given one, or one that is trained on the text of the train mixture."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import seqio

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_digest, write
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import as_path, is_remote
from ift_jax.io.temporary import remove_leftovers
from ift_jax.preparation import fingerprints, seqio_registry
from ift_jax.preparation.read_examples import Reading, is_text_task, text_records
from ift_jax.preparation.sequence_length import sequence_length
from ift_jax.preparation.source_files import count_input_examples, source_fingerprint
from ift_jax.text.chat_templates.registry import controls
from ift_jax.text.tokenizers.train_sentencepiece import VocabularyTooLarge, train_sentencepiece

_CHARACTERS = 20_000_000  # Text that a tokenizer is trained on, over all tasks.
_CHARACTERS_PER_EXAMPLE = 200  # A guess, by which examples are spread over a split.


def tokenizer_path(config: Config, modules_digest: str, log: Log) -> str:
    """Return the path of the given tokenizer, or of one trained on the train mixture.

    Args:
        config: The run's config.
        modules_digest: A hash of the modules that register the tasks.
        log: Called with a line when a tokenizer is trained.

    Raises:
        UserError: The config asks for neither, a task of the mixture is tokenized already, or the
            size is too small for the characters of its text.
    """
    if config.tokenizer.path:
        return config.tokenizer.path
    if not config.tokenizer.train_vocab_size:
        raise UserError(
            "tokenizer.path is empty and tokenizer.train_vocab_size is 0; expected the path of "
            "a tokenizer, or the size of one to train"
        )
    return str(_trained_tokenizer(config, modules_digest, log))


def _trained_tokenizer(config: Config, modules_digest: str, log: Log) -> Path:
    """Train a tokenizer, unless one of the same text and settings is in the store folder."""
    name, split, field = mixture_and_split(config, "train")
    tasks = seqio_registry.tasks_of(seqio_registry.resolve(name, field), split, field)
    size = config.tokenizer.train_vocab_size
    control = (*controls(config.format.template), *config.tokenizer.added_tokens)
    sources = [_source(task, split, config) for task in tasks]
    key = [fingerprints.our_code(), modules_digest, size, control, sources, split, config.seed]
    key_hash = json_digest(key)[:12]
    store_dir = as_path(config.data.store_dir)
    path = store_dir / "tokenizers" / key_hash / "tokenizer.model"
    if _is_whole(path):
        return path  # Before the lock, which a folder that may only be read does not have.
    with build_lock(store_dir, f"tokenizer-{key_hash}", log):
        if not is_remote(path):
            remove_leftovers(path.parent)
        if not _is_whole(path):
            if path.exists():
                log(f"{path} is not known to have the bytes that were written: it is made again")
            log(f"training a tokenizer of {size} pieces on {name!r}")
            readings = [_reading(task, split, config, len(tasks)) for task in tasks]
            content = _train(readings, size, control, log)
            write(path, content)
            write(_sum_path(path), hashlib.sha256(content).hexdigest().encode())
    return path


def _is_whole(path: Path) -> bool:
    """Whether a trained tokenizer is there, with the bytes that were written."""
    if not path.exists() or not _sum_path(path).exists():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest().encode() == _sum_path(path).read_bytes()


def _sum_path(path: Path) -> Path:
    """The file of a trained tokenizer's hash."""
    return path.with_suffix(".sha256")


def _source(task: seqio.Task, split: str, config: Config) -> list[Any]:
    """Return what determines the text of a task, as a JSON value."""
    lengths = sequence_length(task, config.model.architecture, config.data)
    return [task.name, source_fingerprint(task, split), *([lengths] if lengths else [])]


def _reading(task: seqio.Task, split: str, config: Config, n_tasks: int) -> Reading:
    """Return the reading of evenly spread examples of a task.

    Raises:
        UserError: The task is tokenized already, or its source raises an exception.
    """
    if not is_text_task(task):
        raise UserError(
            f"task {task.name!r} is tokenized already: no tokenizer can be trained on it; "
            "set tokenizer.path to its vocabulary"
        )
    lengths = sequence_length(task, config.model.architecture, config.data)
    whole = Reading(task, split, 0, 1, config.seed, lengths)
    count = count_input_examples(task, split) or 1
    wanted_examples = _characters(n_tasks) // _CHARACTERS_PER_EXAMPLE + 1
    return dataclasses.replace(whole, shards=-(-count // wanted_examples))


def _characters(n_tasks: int) -> int:
    """Return the number of characters that each of several tasks gives."""
    return _CHARACTERS // n_tasks + 1


def _train(readings: Sequence[Reading], size: int, control: Sequence[str], log: Log) -> bytes:
    """Train a tokenizer, a smaller one if the text gives fewer pieces than were asked for."""
    try:
        texts = _sampled_texts(readings)
        return train_sentencepiece(texts, vocab_size=size, control=control)
    except VocabularyTooLarge as error:
        log(f"the text gives only {error.largest} pieces: the tokenizer has {error.largest}")
        texts = _sampled_texts(readings)
        return train_sentencepiece(texts, vocab_size=error.largest, control=control)


def _sampled_texts(readings: Sequence[Reading]) -> Iterator[str]:
    """Yield texts of every reading, about as many characters of each."""
    for reading in readings:
        left = _characters(len(readings))
        for record in text_records(reading):
            for message in record.messages:
                yield message.content
                left -= len(message.content)
            if left < 0:
                break
