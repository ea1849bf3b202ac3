"""T5's unsupervised objectives as SeqIO preprocessors: span corruption and prefix LM.

Raffel et al. 2020 (arXiv:1910.10683), sections 3.1.4 and 3.2. They make token ids, so a task with
them tokenises itself; the run's tokenizer must be the same file with the same `extra_ids`. What is
drawn for an example follows from the seed that SeqIO gives it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import seqio
import tensorflow as tf

from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.register import register_task
from ift_jax.sources.tfds import TfdsRowsSource

Ids = npt.NDArray[np.int32]
EXTRA_IDS = 100  # T5's sentinels.
DOCUMENTS = 128  # That are joined before they are cut into segments.
CHUNK = 65_536  # Tokens of a document at the most: one of its chunks, drawn.


def noise_shape(length: int, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns how many of `length` tokens are noise, and in how many spans."""
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), length - noise)
    return noise, spans


def raw_length(inputs: int = 512, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns the longest segment whose corrupted inputs fit, with EOS, and its targets' length.

    512 inputs: 568 tokens, of which 85 in 28 spans are noise, and 114 targets.
    """

    def lengths(length: int) -> tuple[int, int]:
        noise, spans = noise_shape(length, density, mean_span)
        return length - noise + spans + 1, noise + spans + 1

    length = 2
    while lengths(length + 1)[0] <= inputs:
        length += 1
    return length, lengths(length)[1]


def spans(total: int, parts: int, draws: Draws) -> list[int]:
    """Returns `parts` lengths of at least 1 that sum to `total`, all such lists equally likely."""
    cuts = sorted(draws.sample(range(1, total), parts - 1))
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def corrupt(
    ids: Ids, draws: Draws, sentinel: int, density: float = 0.15, mean_span: float = 3.0
) -> tuple[Ids, Ids]:
    """Replaces spans of noise by sentinels that count down from `sentinel`.

    The segment begins with kept tokens and ends with noise, so the inputs end with a sentinel; the
    targets are (sentinel, span) for each span, with no sentinel at the end (the paper's figure
    shows one, the released code makes none). EOS is not added here.

    Raises:
      UserError: more spans than sentinels.
    """
    noise, count = noise_shape(len(ids), density, mean_span)
    if count > EXTRA_IDS:
        raise UserError(
            f"{len(ids)} tokens have {count} spans of noise; there are {EXTRA_IDS} sentinels"
        )
    kept_spans = spans(len(ids) - noise, count, draws)
    noise_spans = spans(noise, count, draws)
    inputs: list[Any] = []
    targets: list[Any] = []
    at = 0
    for k, (kept, lost) in enumerate(zip(kept_spans, noise_spans, strict=True)):
        mark = np.array([sentinel - k], np.int32)
        inputs += [ids[at : at + kept], mark]
        targets += [mark, ids[at + kept : at + kept + lost]]
        at += kept + lost
    return np.concatenate(inputs), np.concatenate(targets)


def split_prefix(ids: Ids, draws: Draws) -> tuple[Ids, Ids]:
    """Cuts a segment in two, at a place drawn uniformly; neither part is empty."""
    at = 1 + draws.below(len(ids) - 1)
    return ids[:at], ids[at:]


def span_corruption(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    inputs_length: int = 512,
    density: float = 0.15,
    mean_span: float = 3.0,
) -> tf.data.Dataset:
    """SeqIO preprocessor: token ids in "targets" become segments, and these are corrupted."""
    sentinel = output_features["targets"].vocabulary.vocab_size - 1
    length, _ = raw_length(inputs_length, density, mean_span)

    def objective(ids: Ids, draws: Draws) -> tuple[Ids, Ids]:
        return corrupt(ids, draws, sentinel, density, mean_span)

    return _apply(_segments(dataset, length), objective)


def prefix_lm(dataset: tf.data.Dataset, inputs_length: int = 512) -> tf.data.Dataset:
    """SeqIO preprocessor: segments of `inputs_length` tokens, EOS counted, cut in two."""
    return _apply(_segments(dataset, inputs_length - 1), split_prefix)


def _segments(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Joins documents, without EOS between them, and cuts them; a last short segment stays."""

    @seqio.map_over_dataset(num_seeds=1)
    def chunk(example: Any, seed: tf.Tensor) -> tf.Tensor:
        ids = example["targets"]
        chunks = tf.maximum((tf.size(ids) - 1) // CHUNK + 1, 1)
        at = CHUNK * tf.random.stateless_uniform([], seed, 0, chunks, tf.int32)
        return ids[at : at + CHUNK]

    def cut(documents: tf.RaggedTensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(documents.flat_values).batch(length)

    dataset = chunk(dataset).ragged_batch(DOCUMENTS).flat_map(cut)
    return dataset.filter(lambda ids: tf.size(ids) > 1)  # One token cannot be cut in two.


def _apply(
    dataset: tf.data.Dataset, objective: Callable[[Ids, Draws], tuple[Ids, Ids]]
) -> tf.data.Dataset:
    def draw(ids: Ids, seed: Ids) -> tuple[Ids, Ids]:
        return objective(ids, Draws(*map(int, seed)))

    @seqio.map_over_dataset(num_seeds=1)
    def apply(ids: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        parts = tf.numpy_function(draw, [ids, seed], [tf.int32, tf.int32], stateful=False)
        return {
            k: tf.ensure_shape(v, [None]) for k, v in zip(("inputs", "targets"), parts, strict=True)
        }

    return apply(dataset)


OBJECTIVES = {"span_corruption": span_corruption, "prefix_lm": prefix_lm}


def register_objective(
    name: str, source: PythonDataSource, vocabulary: str, objective: str, **options: Any
) -> seqio.Task:
    """Register a task with an unsupervised objective.

    Args:
      name: the task's.
      source: gives documents as "targets".
      vocabulary: the path of a SentencePiece model; T5's 100 sentinels are added to it.
      objective: "span_corruption" or "prefix_lm".
      **options: the preprocessor's, e.g. inputs_length=1024.
    """
    spm = seqio.SentencePieceVocabulary(vocabulary, extra_ids=EXTRA_IDS)
    return register_task(
        name,
        source,
        preprocessors=[
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            functools.partial(OBJECTIVES[objective], **options),
            seqio.preprocessors.append_eos,
        ],
        output_features={
            key: seqio.Feature(spm, add_eos=True, required=key == "targets")
            for key in ("inputs", "targets")
        },
    )


def document(row: dict[str, Any], draws: Draws, split: str) -> dict[str, str]:
    """A row's text, as what is to be predicted."""
    return {"targets": row["text"]}


def register_c4(root: str, vocabulary: str) -> None:
    """Registers `t5_c4_span_corruption` and `t5_c4_prefix_lm` on TFDS's or local c4/en."""
    splits = {"train": "train", "validation": "validation"}
    for objective in OBJECTIVES:
        source = TfdsRowsSource("c4/en", document, splits, root, ("targets",))
        register_objective(f"t5_c4_{objective}", source, vocabulary, objective)
