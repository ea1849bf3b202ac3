"""Stores of SeqIO tasks that tokenize themselves."""

import numpy as np
import pytest
import seqio
import seqio.test_utils
import tensorflow as tf

from ift_jax.config.schema import EncoderDecoderConfig, FormatConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation.prepare import prepare
from ift_jax.preparation.read_examples import Reading, text_records
from ift_jax.sources.features import TEXT_FEATURES
from tests.preparation.runs import changed, quiet, store_of

pytestmark = pytest.mark.usefixtures("own_registry")


def add_tokenized_task(name, vocabulary, extra=()):
    def dataset(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices(
            {"inputs": ["this is", "a test", ""], "targets": ["some text", "more", "that"]}
        )

    feature = seqio.Feature(vocabulary, add_eos=True)
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(dataset, splits=["train"]),
        preprocessors=[seqio.preprocessors.tokenize, *extra, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=[],
    )


@pytest.mark.parametrize("extra_ids", [0, 10])
def test_seqio_task_that_tokenizes_itself(config, extra_ids):
    vocabulary = seqio.test_utils.sentencepiece_vocab(extra_ids=extra_ids)
    task = add_tokenized_task("own_ids", vocabulary)
    config = changed(
        config,
        data__mixture="own_ids",
        model=EncoderDecoderConfig(),
        tokenizer=TokenizerConfig(vocabulary.sentencepiece_model_file, extra_ids),
    )
    store = store_of(config)
    expected = list(task.get_dataset(None, "train", shuffle=False).as_numpy_iterator())
    assert len(store) == len(expected) == 3
    for i, features in enumerate(expected):
        assert store.encoder_tokens(i).tolist() == features["inputs"].tolist()
        assert store.tokens(i).tolist() == features["targets"].tolist()
    other = changed(config, tokenizer__extra_ids=5)
    with pytest.raises(UserError, match="'own_ids'.*tokenized already"):
        prepare(other, log=quiet)


def test_negative_ids_and_loss_weights_are_untrained(config):
    vocabulary = seqio.test_utils.sentencepiece_vocab()

    def negative_first(dataset):
        def change(features):
            targets = features["targets"]
            sign = tf.concat([[-1], tf.ones_like(targets[1:])], 0)
            return features | {"targets": targets * sign}

        return dataset.map(change)

    def weigh(dataset):
        def change(features):
            n = tf.size(features["targets"])
            return features | {"targets_loss_weights": tf.range(n, dtype=tf.float32)}

        return dataset.map(change)

    add_tokenized_task("negative", vocabulary, [negative_first])
    task = add_tokenized_task("weighted", vocabulary)
    seqio.TaskRegistry.add(
        "weighted_last",
        source=task.source,
        preprocessors=[*task.preprocessors, weigh],
        output_features=task.output_features,
    )
    tokenizer = TokenizerConfig(vocabulary.sentencepiece_model_file)
    plain = changed(config, tokenizer=tokenizer, format=FormatConfig(template="plain"))
    negative = store_of(changed(plain, data__mixture="negative"))
    weighted = store_of(changed(plain, data__mixture="weighted_last"))
    ordinary = store_of(changed(plain, data__mixture="weighted"))
    for i in range(3):
        np.testing.assert_array_equal(negative.tokens(i), ordinary.tokens(i))
        (trained,) = np.nonzero(ordinary.weights(i))
        np.testing.assert_array_equal(np.nonzero(negative.weights(i))[0], trained[1:])
        np.testing.assert_array_equal(weighted.weights(i)[trained], np.arange(len(trained)))


def test_features_that_would_mean_something_in_a_row_are_named():
    """A weight and a system turn beside the two texts were left out without a word."""

    def dataset(split, shuffle_files):
        columns = {"inputs": ["q"] * 2, "targets": ["a"] * 2, "system": ["s"] * 2}
        return tf.data.Dataset.from_tensor_slices({**columns, "weight": [0.0, 1.0], "idx": [0, 1]})

    task = seqio.TaskRegistry.add(
        "more_features",
        source=seqio.FunctionDataSource(dataset, splits=["train"]),
        preprocessors=[],
        output_features=TEXT_FEATURES,
        metric_fns=[],
    )
    records = list(text_records(Reading(task, "train", 0, 1, seed=0)))
    assert [record.unread for record in records] == [("system", "weight")] * 2
    assert [len(record.messages) for record in records] == [2, 2]
