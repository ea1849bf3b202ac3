"""Preprocessors that take SeqIO's `sequence_length`, as T5's objectives do."""

import dataclasses

import pytest
import seqio
import seqio.test_utils
import tensorflow as tf

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig, FormatConfig, TokenizerConfig
from ift_jax.data.randomness import stable_hash
from ift_jax.errors import UserError
from ift_jax.preparation.prepare import prepare
from ift_jax.sources.features import TEXT_FEATURES
from tests.preparation.runs import changed, quiet, store_of

pytestmark = pytest.mark.usefixtures("own_registry")

VOCABULARY = seqio.test_utils.sentencepiece_vocab(extra_ids=20)
FEATURE = seqio.Feature(VOCABULARY, add_eos=True)
TEXTS = [f"this is a test of number {i} " * (1 + i % 7) for i in range(60)]
EOS = 1  # A token's room, for the EOS that follows.


def rows(split, shuffle_files, seed=None):
    return tf.data.Dataset.from_tensor_slices({"targets": TEXTS})


def split_at_random(dataset, sequence_length, output_features):
    """A prefix LM: segments of the two lengths together, split into inputs and targets."""
    assert set(output_features) == {"inputs", "targets"}
    n_inputs, n_targets = sequence_length["inputs"] - EOS, sequence_length["targets"] - EOS

    @seqio.map_over_dataset(num_seeds=1)
    def split(example, seed):
        ids = example["targets"][: n_inputs + n_targets]
        least = tf.maximum(tf.size(ids) - n_targets, 1)
        most = tf.minimum(tf.size(ids) - 1, n_inputs)
        cut = tf.random.stateless_uniform((), seed, least, most + 1, tf.int32)
        return {"inputs": ids[:cut], "targets": ids[cut:]}

    return split(dataset)


def cut_targets(dataset, sequence_length):
    return dataset.map(
        lambda example: {"targets": example["targets"][: sequence_length["targets"]]}
    )


@dataclasses.dataclass(frozen=True)
class CutTargets:
    """A preprocessor in the form of a dataclass, whose field SeqIO sets."""

    sequence_length: dict[str, int] | None = None

    def __call__(self, dataset):
        return cut_targets(dataset, self.sequence_length)


def add(name, *preprocessors, features=("inputs", "targets"), tokenized=True):
    first = [seqio.preprocessors.tokenize] if tokenized else []
    return seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(rows, splits=["train"]),
        preprocessors=[*first, seqio.CacheDatasetPlaceholder(), *preprocessors],
        output_features={f: FEATURE if tokenized else TEXT_FEATURES[f] for f in features},
    )


@pytest.fixture
def run(config):
    tokenizer = TokenizerConfig(VOCABULARY.sentencepiece_model_file, VOCABULARY.extra_ids)
    return changed(
        config,
        data__modules=(),
        data__inputs_length=24,
        data__targets_length=16,
        data__max_length=40,
        tokenizer=tokenizer,
        format=FormatConfig(template="plain"),
    )


def _of_seqio(task, lengths):
    """What SeqIO gives for the seed of the store's first variant."""
    seed = stable_hash("render", 0, task.name, 0, bits=31)
    dataset = task.get_dataset(lengths, "train", shuffle=False, seed=seed)
    return [
        {name: ids.tolist() for name, ids in example.items()}
        for example in dataset.as_numpy_iterator()
    ]


@pytest.mark.parametrize("model", [EncoderDecoderConfig(), DecoderConfig()])
def test_a_store_holds_what_seqio_gives_for_the_lengths_of_the_run(run, model):
    task = add("prefix", split_at_random, seqio.preprocessors.append_eos_after_trim)
    run = changed(run, data__mixture="prefix", model=model)
    for n_inputs, n_targets in ((24, 16), (10, 30)):
        sized = changed(run, data__inputs_length=n_inputs, data__targets_length=n_targets)
        store = store_of(sized)  # Other lengths are another store.
        expected = _of_seqio(task, {"inputs": n_inputs, "targets": n_targets})
        assert len(store) == len(expected) == len(TEXTS)
        assert max(len(example["inputs"]) for example in expected) == n_inputs
        for i, example in enumerate(expected):
            inputs, targets = store.encoder_tokens(i).tolist(), store.tokens(i).tolist()
            if model.architecture == "decoder":
                assert targets == example["inputs"] + example["targets"]
            else:
                assert (inputs, targets) == (example["inputs"], example["targets"])


@pytest.mark.parametrize("cut", [cut_targets, CutTargets()])
def test_a_decoders_task_without_inputs_gets_the_row(run, cut):
    add("lm", cut, features=["targets"])
    store = store_of(changed(run, data__mixture="lm", data__max_length=20))
    assert len(store) == len(TEXTS) and store.lengths.max() == 20


def test_lengths_that_no_row_of_a_decoder_holds_are_named(run):
    add("prefix", split_at_random)
    with pytest.raises(UserError) as error:
        prepare(changed(run, data__mixture="prefix", data__inputs_length=30), log=quiet)
    assert str(error.value).startswith(
        "data.inputs_length 30 and data.targets_length 16: expected a sum of at most "
        "data.max_length 40, because split_at_random of task 'prefix'"
    )


def test_a_task_that_needs_no_lengths_is_not_trimmed(run):
    """SeqIO would trim without a word; `data.over_length` drops and counts instead."""

    def twice(dataset):
        return dataset.map(lambda e: {"inputs": e["targets"], "targets": e["targets"]})

    add("untrimmed", twice, seqio.preprocessors.append_eos_after_trim)
    run = changed(
        run,
        data__mixture="untrimmed",
        data__inputs_length=64,
        data__targets_length=64,
        data__max_dropped_fraction=1.0,
        model=EncoderDecoderConfig(),
    )
    store = store_of(run)
    assert store.manifest["dropped"]["too_long"] == len(TEXTS) - len(store) > 0
    assert all(store.tokens(i)[-1] == VOCABULARY.eos_id for i in range(len(store)))


def test_a_task_that_requires_seqios_cache_is_refused_by_name(run):
    seqio.TaskRegistry.add(
        "cached",
        source=seqio.FunctionDataSource(rows, splits=["train"]),
        preprocessors=[seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(required=True)],
        output_features={"targets": FEATURE},
    )
    with pytest.raises(UserError, match=r"^task 'cached': its CacheDatasetPlaceholder\(required"):
        prepare(changed(run, data__mixture="cached"), log=quiet)
