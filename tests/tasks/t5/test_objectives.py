"""Span corruption and prefix LM: lengths, sentinels, and a store made of them."""

import collections
import json

import numpy as np
import pytest
import seqio
import seqio.test_utils

from ift_jax.config.schema import Config, DataConfig, EncoderDecoderConfig, TokenizerConfig
from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.preparation.prepare import prepare
from tasks.t5 import objectives

pytestmark = pytest.mark.usefixtures("own_registry")


def test_the_published_lengths():
    assert objectives.noise_shape(568) == (85, 28)
    assert objectives.raw_length(512) == (568, 114)
    assert objectives.noise_shape(2) == (1, 1)


def _restored(inputs, targets, sentinel):
    """Return the segment that both parts are made of, and the sentinels."""
    spans, current = {}, None
    for token in targets:
        if token > sentinel - 100:
            spans[current := token] = []
        else:
            spans[current].append(token)
    restored = [t for token in inputs for t in spans.get(token, [token])]
    return restored, list(spans)


@pytest.mark.parametrize("length", [2, 3, 10, 100, 568])
def test_corrupted_parts_hold_the_segment_once(length):
    ids = np.arange(5, 5 + length, dtype=np.int32)
    noise, count = objectives.noise_shape(length)
    for seed in range(5):
        inputs, targets = objectives.corrupt(ids, Draws(seed), 32_099)
        restored, sentinels = _restored(inputs.tolist(), targets.tolist(), 32_099)
        assert restored == ids.tolist()
        assert sentinels == [32_099 - k for k in range(count)]
        assert (len(inputs), len(targets)) == (length - noise + count, noise + count)
        assert inputs[0] == ids[0] and inputs[-1] == 32_100 - count  # The segment ends with noise.
        assert targets[-1] == ids[-1]  # No sentinel ends the targets.
    assert inputs.dtype == targets.dtype == np.int32


def test_golden_example():
    ids = np.arange(10, 20, dtype=np.int32)
    inputs, targets = objectives.corrupt(ids, Draws(0), 99, density=0.3, mean_span=1.5)
    assert objectives.noise_shape(10, 0.3, 1.5) == (3, 2)
    parts = inputs.tolist(), targets.tolist()
    assert objectives.corrupt(ids, Draws(0), 99, 0.3, 1.5)[0].tolist() == parts[0]
    kept = [t for t in parts[0] if t < 98]
    lost = [t for t in parts[1] if t < 98]
    assert sorted(kept + lost) == ids.tolist() and len(lost) == 3
    with pytest.raises(UserError, match="there are 100 sentinels"):
        objectives.corrupt(np.arange(4000, dtype=np.int32), Draws(0), 99_999)


def test_spans_are_uniform_over_compositions():
    counts = collections.Counter(tuple(objectives.spans(5, 3, Draws(i))) for i in range(3000))
    assert len(counts) == 6 and all(sum(lengths) == 5 for lengths in counts)
    assert min(counts.values()) > 420 and max(counts.values()) < 580
    cuts = collections.Counter(
        len(objectives.split_prefix(np.arange(5), Draws(i))[0]) for i in range(2000)
    )
    assert sorted(cuts) == [1, 2, 3, 4] and min(cuts.values()) > 420


def _documents(root, n=40):
    (root / "c4" / "en").mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [{"text": f"this is a test of the thing {i} " * (3 + i % 5)} for i in range(n)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "c4" / "en" / f"{split}.jsonl").write_text(text)


@pytest.mark.parametrize("objective", ["span_corruption", "prefix_lm"])
def test_a_store_of_an_objective(tmp_path, objective):
    _documents(tmp_path)
    vocabulary = seqio.test_utils.sentencepiece_vocab(extra_ids=100)
    model = vocabulary.sentencepiece_model_file
    name = f"t5_c4_{objective}"
    objectives.register_c4(str(tmp_path), model)
    objectives.register_c4(str(tmp_path), model)
    config = Config(
        tokenizer=TokenizerConfig(model, 100),
        data=DataConfig(
            mixture=name,
            store_dir=str(tmp_path / "stores"),
            processes=1,
            inputs_length=512,
            targets_length=512,
        ),
        model=EncoderDecoderConfig(),
    )
    store = prepare(config, "train", log=lambda _: None).mixture.stores[0]
    source = seqio.TaskRegistry.get(name).source
    ids = [vocabulary.encode(r["targets"]) for r in source.records("train")]
    ids = [token for document in ids for token in document]
    eos, sentinel = vocabulary.eos_id, vocabulary.vocab_size - 1
    restored = []
    for i in range(len(store)):
        inputs, targets = store.encoder_tokens(i).tolist(), store.tokens(i).tolist()
        assert inputs.pop() == targets.pop() == eos
        assert len(inputs) < 512
        if objective == "span_corruption":
            restored += _restored(inputs, targets, sentinel)[0]
        else:
            restored += inputs + targets
    assert restored == ids
    if objective == "span_corruption":
        assert len(store.encoder_tokens(0)) == 512 and len(store.tokens(0)) == 114


def test_the_noise_follows_the_seed(tmp_path):
    _documents(tmp_path)
    model = seqio.test_utils.sentencepiece_vocab(extra_ids=100).sentencepiece_model_file
    objectives.register_c4(str(tmp_path), model)
    task = seqio.TaskRegistry.get("t5_c4_span_corruption")

    def first(seed):
        dataset = task.get_dataset(None, "train", shuffle=False, seed=seed)
        return next(dataset.as_numpy_iterator())["inputs"].tolist()

    assert first(1) == first(1) != first(2)
