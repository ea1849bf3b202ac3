"""T5's unsupervised objectives as SeqIO preprocessors: span corruption and prefix LM.

Raffel et al. 2020 (arXiv:1910.10683), sections 3.1.4 and 3.2. The objectives make token ids, so a
task with one of them tokenizes its own text; the tokenizer of the run must be the same file with
the same `extra_ids`. The draws of an example follow from the seed that SeqIO gives it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
Preprocessor = Callable[..., tf.data.Dataset]
EXTRA_IDS = 100  # The number of T5's sentinels.
DOCUMENTS = 128  # Documents that are joined before they are split into segments.
CHUNK = 65_536  # Tokens. Of a longer document, one chunk of this length is drawn.


class NoiseShape(NamedTuple):
    """How many tokens of a segment are noise, and in how many spans they lie."""

    tokens: int
    spans: int


class SegmentLengths(NamedTuple):
    """The length of a segment before corruption, and of its targets with EOS, in tokens."""

    segment: int
    targets: int


class TextPair(NamedTuple):
    """The token ids of an example, without EOS."""

    inputs: Ids
    targets: Ids


def noise_shape(length: int, density: float = 0.15, mean_span: float = 3.0) -> NoiseShape:
    """Return the noise of a segment of `length` tokens."""
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), length - noise)
    return NoiseShape(noise, spans)


def raw_length(inputs: int = 512, density: float = 0.15, mean_span: float = 3.0) -> SegmentLengths:
    """Return the longest segment whose corrupted inputs, with EOS, fit into `inputs` tokens.

    For 512 inputs it has 568 tokens, of which 85 in 28 spans are noise, and 114 targets.
    """

    def inputs_length(length: int) -> int:
        noise = noise_shape(length, density, mean_span)
        return length - noise.tokens + noise.spans + 1

    length = 2
    while inputs_length(length + 1) <= inputs:
        length += 1
    noise = noise_shape(length, density, mean_span)
    return SegmentLengths(length, noise.tokens + noise.spans + 1)


def spans(total: int, parts: int, draws: Draws) -> list[int]:
    """Return `parts` lengths of at least 1 that sum to `total`, all such lists equally likely."""
    cuts = sorted(draws.sample(range(1, total), parts - 1))
    starts = [0, *cuts]
    ends = [*cuts, total]
    return [end - start for start, end in zip(starts, ends, strict=True)]


def corrupt(
    ids: Ids, draws: Draws, sentinel: int, density: float = 0.15, mean_span: float = 3.0
) -> TextPair:
    """Replace spans of noise by sentinels that count down from `sentinel`.

    The segment begins with kept tokens and ends with noise, so the inputs end with a sentinel. The
    targets are a sentinel and its span for each span. No sentinel ends them: the paper's figure
    shows one, but the released code does not make it.

    Raises:
        UserError: There are more spans than sentinels.
    """
    noise = noise_shape(len(ids), density, mean_span)
    if noise.spans > EXTRA_IDS:
        raise UserError(
            f"{len(ids)} tokens have {noise.spans} spans of noise; there are {EXTRA_IDS} sentinels"
        )
    kept_lengths = spans(len(ids) - noise.tokens, noise.spans, draws)
    noise_lengths = spans(noise.tokens, noise.spans, draws)
    inputs: list[Ids] = []
    targets: list[Ids] = []
    start = 0
    for number, (kept, lost) in enumerate(zip(kept_lengths, noise_lengths, strict=True)):
        mark = np.array([sentinel - number], np.int32)
        noise_start = start + kept
        end = noise_start + lost
        inputs += [ids[start:noise_start], mark]
        targets += [mark, ids[noise_start:end]]
        start = end
    return TextPair(np.concatenate(inputs), np.concatenate(targets))


def split_prefix(ids: Ids, draws: Draws) -> TextPair:
    """Split a segment in two at a position that is drawn uniformly; neither part is empty."""
    cut = 1 + draws.below(len(ids) - 1)
    return TextPair(ids[:cut], ids[cut:])


def span_corruption(
    dataset: tf.data.Dataset,
    output_features: Mapping[str, seqio.Feature],
    inputs_length: int = 512,
    density: float = 0.15,
    mean_span: float = 3.0,
) -> tf.data.Dataset:
    """Split documents into segments and corrupt them; a SeqIO preprocessor.

    Args:
        dataset: Examples with the token ids of a document in "targets".
        output_features: The features of the task. The last ids of the vocabulary are sentinels.
        inputs_length: The length of the inputs, EOS counted.
        density: The fraction of the tokens that is noise.
        mean_span: The mean length of a span of noise, in tokens.
    """
    sentinel = output_features["targets"].vocabulary.vocab_size - 1
    lengths = raw_length(inputs_length, density, mean_span)

    def objective(ids: Ids, draws: Draws) -> TextPair:
        return corrupt(ids, draws, sentinel, density, mean_span)

    return _apply(_segments(dataset, lengths.segment), objective)


def prefix_lm(dataset: tf.data.Dataset, inputs_length: int = 512) -> tf.data.Dataset:
    """Split documents into segments of `inputs_length`, EOS counted, and each segment in two."""
    return _apply(_segments(dataset, inputs_length - 1), split_prefix)


def _segments(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Join documents, without EOS between them, and split them; the last segment may be shorter."""

    @seqio.map_over_dataset(num_seeds=1)
    def draw_chunk(example: Any, seed: tf.Tensor) -> tf.Tensor:
        ids = example["targets"]
        chunks = tf.maximum((tf.size(ids) - 1) // CHUNK + 1, 1)
        start = CHUNK * tf.random.stateless_uniform([], seed, 0, chunks, tf.int32)
        return ids[start : start + CHUNK]

    def split(documents: tf.RaggedTensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(documents.flat_values).batch(length)

    segments = draw_chunk(dataset).ragged_batch(DOCUMENTS).flat_map(split)
    return segments.filter(lambda ids: tf.size(ids) > 1)  # One token cannot be split in two.


def _apply(
    dataset: tf.data.Dataset, objective: Callable[[Ids, Draws], TextPair]
) -> tf.data.Dataset:
    """Turn segments of token ids into inputs and targets."""

    def draw(ids: Ids, seed: Ids) -> TextPair:
        return objective(ids, Draws(*map(int, seed)))

    @seqio.map_over_dataset(num_seeds=1)
    def apply(ids: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs, targets = tf.numpy_function(draw, [ids, seed], [tf.int32, tf.int32], stateful=False)
        return {
            "inputs": tf.ensure_shape(inputs, [None]),
            "targets": tf.ensure_shape(targets, [None]),
        }

    return apply(dataset)


OBJECTIVES: Mapping[str, Preprocessor] = {
    "span_corruption": span_corruption,
    "prefix_lm": prefix_lm,
}


def register_objective(
    name: str, source: PythonDataSource, vocabulary: str, objective: str, **options: Any
) -> seqio.Task:
    """Register a task with an unsupervised objective.

    Args:
        name: The task's name.
        source: The source of documents, as "targets".
        vocabulary: The path of a SentencePiece model, to which T5's 100 sentinels are added.
        objective: "span_corruption" or "prefix_lm".
        **options: Arguments of the preprocessor, such as inputs_length=1024.
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
            "inputs": seqio.Feature(spm, add_eos=True, required=False),
            "targets": seqio.Feature(spm, add_eos=True, required=True),
        },
    )


def document(row: dict[str, Any], draws: Draws, split: str) -> dict[str, str]:
    """Return a row's text as the targets of a record."""
    return {"targets": row["text"]}


def register_c4(root: str, vocabulary: str) -> None:
    """Register `t5_c4_span_corruption` and `t5_c4_prefix_lm` on c4/en, local or of TFDS."""
    splits = {"train": "train", "validation": "validation"}
    for objective in OBJECTIVES:
        source = TfdsRowsSource("c4/en", document, splits, root, ("targets",))
        register_objective(f"t5_c4_{objective}", source, vocabulary, objective)
