"""The tokenizer of a run: a given file, or one trained on the text of the train mixture."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ift_jax.config.mixtures import mixture_and_split
from ift_jax.config.schema import Config
from ift_jax.errors import UserError
from ift_jax.io.files import Log, json_digest, write
from ift_jax.io.locks import build_lock
from ift_jax.io.paths import place
from ift_jax.preparation import fingerprints, seqio_registry, shards
from ift_jax.preparation.source_files import source_fingerprint
from ift_jax.text.chat_templates.registry import controls
from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece

if TYPE_CHECKING:
    import seqio

_TOKENIZER_CHARACTERS = 20_000_000  # That a tokenizer is trained on, over all tasks.


def tokenizer_path(config: Config, modules_digest: str, log: Log) -> str:
    """The given tokenizer's path, or that of one trained on the text of the train mixture.

    A UserError, if neither is asked for, or the text does not give so many pieces.
    """
    tokenizer = config.tokenizer
    if tokenizer.path:
        return tokenizer.path
    if not tokenizer.train_vocab_size:
        raise UserError(
            "tokenizer.path is empty and tokenizer.train_vocab_size is 0; expected the path of "
            "a tokenizer, or the size of one to train"
        )
    name, split, field = mixture_and_split(config, "train")
    tasks = seqio_registry.tasks_of(seqio_registry.resolve(name, field), split, field)
    control = (*controls(config.format.template), *tokenizer.added_tokens)
    size = tokenizer.train_vocab_size
    sources = [[t.name, source_fingerprint(t.source, split)] for t in tasks]
    key = [fingerprints.our_code(), modules_digest, size, control, sources, split, config.seed]
    key_hash = json_digest(key)[:12]
    store_dir = place(config.data.store_dir)
    path = store_dir / "tokenizers" / key_hash / "tokenizer.model"
    with build_lock(store_dir, f"tokenizer-{key_hash}", log):
        if not path.exists():
            log(f"training a tokenizer of {size} pieces on {name!r}")
            texts = _texts(tasks, split, config.seed)
            write(path, train_sentencepiece(texts, vocab_size=size, control=control))
    return str(path)


def _texts(tasks: Sequence["seqio.Task"], split: str, seed: int) -> Iterator[str]:
    """A sample of the texts of tasks: evenly spread examples, the same share of each task."""
    budget = _TOKENIZER_CHARACTERS // len(tasks) + 1
    for task in tasks:
        if not shards.is_text_task(task):
            raise UserError(
                f"task {task.name!r} is tokenised already: no tokenizer can be trained on it; "
                "set tokenizer.path to its vocabulary"
            )
        step = -(-(task.num_input_examples(split) or 1) // (budget // 200 + 1))
        left = budget
        for record in shards.text_records(task, split, 0, step, seed):
            for message in record.messages:
                yield message.content
                left -= len(message.content)
            if left < 0:
                break
