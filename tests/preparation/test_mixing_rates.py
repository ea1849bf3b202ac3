"""The rates of mixtures in mixtures."""

import functools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation.mixing_rates import mixing_rates
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
