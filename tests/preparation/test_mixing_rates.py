"""The rates of mixtures in mixtures."""

import dataclasses
import functools

import numpy as np
import pytest
import seqio
import seqio.test_utils
import tensorflow as tf

from ift_jax.config.schema import FormatConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation.holdout_check import check_config
from ift_jax.preparation.mixing_rates import mixing_rates
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.preparation.prepare import prepare
from ift_jax.sources.features import TEXT_FEATURES
from tests.preparation.runs import changed, quiet

pytestmark = pytest.mark.usefixtures("own_registry")


def test_rates_of_nested_mixtures_are_those_of_seqio(config):
    def add(name, n):
        def dataset(split, shuffle_files):
            return tf.data.Dataset.from_tensor_slices({"inputs": ["a"] * n, "targets": ["b"] * n})

        source = seqio.FunctionDataSource(dataset, ["train"], num_input_examples={"train": n})
        seqio.TaskRegistry.add(name, source=source, output_features=TEXT_FEATURES)

    for name, n in (("a", 10), ("b", 40), ("c", 300), ("d", 7)):
        add(name, n)
    capped = functools.partial(seqio.mixing_rate_num_examples, maximum=100, temperature=2)
    seqio.MixtureRegistry.add("inner", [("a", capped), ("b", 3.0), ("c", capped)])
    seqio.MixtureRegistry.add("inner2", ["c", "d"], default_rate=seqio.mixing_rate_num_examples)
    seqio.MixtureRegistry.add("outer", [("inner", 2.0), ("inner2", 1), ("d", 0.25), ("a", 0.5)])
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    prepared = prepare(changed(config, data__mixture="outer", tokenizer=tokenizer), log=quiet)
    mixture = seqio.MixtureRegistry.get("outer")
    assert prepared.mixture.tasks == [task.name for task in mixture.tasks] == ["a", "b", "c", "d"]
    expected = [mixture.get_rate(task) for task in mixture.tasks]
    np.testing.assert_allclose(prepared.mixture.rates, expected, rtol=1e-12)
    # Dropped examples do not count, as SeqIO has it for a cached task.
    tasks = list(mixture.tasks)
    counts = {"a": 10, "b": 40, "c": 64, "d": 7}
    rates = mixing_rates(seqio.MixtureRegistry.get("inner"), tasks[:3], "train", counts)
    np.testing.assert_allclose(rates, [10**0.5, 3.0, 8.0])
    seqio.MixtureRegistry.add("wrong", [("inner", capped)])
    with pytest.raises(UserError, match="'inner'.*must be a number"):
        mixing_rates(seqio.MixtureRegistry.get("wrong"), tasks[:1], "train", {})


def _add_rows(name, splits=("train",), n=3):
    def dataset(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["a"] * n, "targets": ["b"] * n})

    source = seqio.FunctionDataSource(dataset, splits, num_input_examples=dict.fromkeys(splits, n))
    return seqio.TaskRegistry.add(name, source=source, output_features=TEXT_FEATURES)


def _on_tokenizer(config):
    """The config with a tokenizer that exists, and without modules."""
    tokenizer = TokenizerConfig(seqio.test_utils.sentencepiece_vocab().sentencepiece_model_file)
    plain = FormatConfig(template="plain")
    return changed(config, data__modules=(), tokenizer=tokenizer, format=plain)


def _add_unreadable(name):
    """A task whose data cannot be read."""

    def dataset(split, shuffle_files):
        raise AssertionError("is read")

    source = seqio.FunctionDataSource(dataset, ["train", "validation"])
    seqio.TaskRegistry.add(name, source=source, output_features=TEXT_FEATURES)


def test_a_task_at_rate_0_is_neither_prepared_nor_needs_data(config):
    _add_rows("a")
    _add_rows("b", ["train", "validation"])
    _add_rows("only_test", ["test"])
    _add_unreadable("unreadable")
    seqio.MixtureRegistry.add("silent", [("unreadable", 1.0)])
    seqio.MixtureRegistry.add("quiet", [("unreadable", 0.0), ("a", 2.0)])
    seqio.MixtureRegistry.add(
        "some", [("a", 1.0), ("b", lambda task: 0.0), ("silent", 0), ("quiet", 1), ("only_test", 1)]
    )
    config = changed(_on_tokenizer(config), data__mixture="some")
    expected = [
        "'some': 1 of 4 tasks have no split 'train' and are left out: only_test",
        "'some': 1 of 4 tasks have the rate 0 and are left out: unreadable",
        "'some': 1 of 4 tasks have the rate 0 and are left out: b",
    ]
    for _ in range(2):  # With the stores to be made, and on the fast path.
        said = []
        _, mixture = open_or_prepare(config, log=said.append)
        assert mixture.tasks == ["a"] and mixture.rates.tolist() == [2.0]
        assert [line for line in said if "left out" in line] == expected
    # TensorFlow, which samples for SeqIO, leaves out what has weight 0.
    with pytest.raises(AssertionError, match="is read"):
        seqio.get_mixture_or_task("silent").get_dataset(None, "train")


def test_a_tokenizer_is_trained_without_the_tasks_at_rate_0(config):
    _add_unreadable("unreadable")
    prepare(config, log=quiet)  # Registers "made".
    seqio.MixtureRegistry.add("some", [("made", 1.0), ("unreadable", 0)])
    prepared = prepare(changed(config, data__mixture="some"), log=quiet)
    assert prepared.mixture.tasks == ["made"]


def test_a_mixture_of_which_nothing_is_drawn_is_named(config):
    _add_rows("a")
    seqio.MixtureRegistry.add("none", [("a", 0)])
    seqio.MixtureRegistry.add("never", [("a", lambda task: 0)])
    for name, message in (("none", "every task of 'none'"), ("never", "every rate is 0")):
        with pytest.raises(UserError, match=message):
            prepare(changed(_on_tokenizer(config), data__mixture=name), log=quiet)


def test_what_is_held_out_may_be_in_the_mixture_at_rate_0(config):
    _add_rows("a")
    _add_rows("held_out", ["train", "test"])
    seqio.MixtureRegistry.add("without", [("a", 1), ("held_out", 0)])
    seqio.MixtureRegistry.add("with", [("a", 1), ("held_out", 1)])
    data = changed(config, data__heldout_mixture="held_out").data
    check_config(dataclasses.replace(data, mixture="without"))
    with pytest.raises(UserError, match="but data.mixture has held_out"):
        check_config(dataclasses.replace(data, mixture="with"))
