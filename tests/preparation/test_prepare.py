"""What is in a store, what determines it, and what is said if it cannot be made."""

import json
from pathlib import Path

import numpy as np
import pytest

from ift_jax.config.schema import EncoderDecoderConfig, OptimizerConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation import shards
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.preparation.prepare import prepare
from ift_jax.preparation.shards import parts_of_store
from tests.preparation.runs import changed, edit_helper, quiet, store_of, write_lines

pytestmark = pytest.mark.usefixtures("own_registry")


def test_store_holds_the_task_in_all_its_shards(config):
    prepared = prepare(config, log=quiet)
    store = prepared.mixture.stores[0]
    assert store.manifest["shards"] == 3 and len(store) == 95
    assert sorted(store.indices.tolist()) == list(range(95))
    for i in range(len(store)):
        k = int(store.indices[i])
        text = prepared.tokenizer.decode(store.tokens(i), keep_special=True)
        assert f"add {k} and {k}<|im_end|>" in text
        trained = store.tokens(i)[store.weights(i) > 0]
        assert prepared.tokenizer.decode(trained, keep_special=True) == f"{2 * k}<|im_end|>"
        assert store.references(i) == (str(2 * k),)
    assert prepared.mixture.tasks == ["made"] and prepared.mixture.rates.tolist() == [1.0]


def test_encoder_decoder_store(config):
    prepared = prepare(changed(config, model=EncoderDecoderConfig()), log=quiet)
    store = prepared.mixture.stores[0]
    k = int(store.indices[7])
    eos = [prepared.tokenizer.eos_id]
    lines = Path(config.data.root, "train.jsonl").read_text().splitlines()
    text = json.loads(lines[k])["inputs"]
    encode = prepared.tokenizer.encode
    assert store.encoder_tokens(7).tolist() == encode(text) + eos
    assert store.tokens(7).tolist() == encode(str(2 * k)) + eos
    assert (store.weights(7) == 1).all()


def test_what_determines_a_store_and_what_does_not(config, tmp_path):
    base = store_of(config).path
    same = [
        {"optimizer": OptimizerConfig(learning_rate=0.5)},
        {"data__window": 99},
        {"data__pack": False},
        {"data__max_dropped_fraction": 0.9},
        {"data__inputs_length": 99},  # Not a length of a decoder.
    ]
    for change in same:
        assert store_of(changed(config, **change)).path == base, change
    others = [
        {"format__template": "plain"},
        {"format__train_on": "last"},
        {"data__max_length": 400},
        {"data__over_length": "truncate-prompt"},
        {"data__variants": 2},
        {"tokenizer__train_vocab_size": 305},
        {"seed": 1},
    ]
    paths = {store_of(changed(config, **change)).path for change in others}
    assert len(paths) == len(others) and base not in paths
    write_lines(tmp_path / "data" / "train.jsonl", 94)
    new_data = store_of(config)
    assert new_data.path not in paths | {base} and len(new_data) == 94
    edit_helper(tmp_path, "VALUE = 2\n")
    assert store_of(config).path not in paths | {base, new_data.path}


def test_the_parts_of_a_store_are_listed_once(config, monkeypatch):
    listed = []

    def list_parts(task, split, variants, folder):
        listed.append((task.name, split, variants))
        return parts_of_store(task, split, variants, folder)

    monkeypatch.setattr(shards, "parts_of_store", list_parts)
    several = changed(config, data__variants=2)
    assert len(prepare(several, log=quiet).mixture.stores[0]) == 95
    assert listed == [("made", "train", 2)]
    prepare(several, log=quiet)  # Nothing is missing, so nothing is listed.
    assert len(listed) == 1


def test_trained_tokenizer_is_shared_by_all_splits(config):
    train = prepare(config, log=quiet)
    lines = []
    unseen = prepare(config, "eval", log=lines.append)
    assert unseen.tokenizer_path == train.tokenizer_path
    assert not any("training a tokenizer" in line for line in lines)
    assert len(unseen.mixture.stores[0]) == 15
    assert prepare(config, log=quiet).tokenizer.fingerprint == train.tokenizer.fingerprint


def test_a_tokenizer_is_no_larger_than_its_text_allows(config):
    lines = []
    large = changed(config, tokenizer__train_vocab_size=5000)
    tokenizer = prepare(large, log=lines.append).tokenizer
    [line] = [line for line in lines if line.startswith("the text gives only")]
    assert line == (
        f"the text gives only {tokenizer.vocab_size} pieces: the tokenizer has "
        f"{tokenizer.vocab_size}"
    )
    assert 256 < tokenizer.vocab_size < 5000


def test_random_preprocessors_follow_seed_and_variant(config):
    import seqio
    import tensorflow as tf

    from ift_jax.sources.features import TEXT_FEATURES

    @seqio.map_over_dataset(num_seeds=1)
    def draw(features, seed):
        number = tf.random.stateless_uniform([], seed, 0, 10**6, tf.int32)
        return features | {"targets": tf.strings.as_string(number)}

    def dataset(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices({"inputs": ["a"] * 90, "targets": ["b"] * 90})

    source = seqio.FunctionDataSource(dataset, ["train"], num_input_examples={"train": 90})
    seqio.TaskRegistry.add(
        "random", source=source, preprocessors=[draw], output_features=TEXT_FEATURES
    )
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    config = changed(config, data__mixture="random", data__variants=2, tokenizer=tokenizer)

    def drawn(config):
        store = store_of(config)
        assert store.manifest["shards"] == 3
        return [
            [store.variants[v].references(i)[0] for i in range(90)] for v in range(store.n_variants)
        ]

    first, second = drawn(config)
    assert len(set(first) | set(second)) > 170  # Also from shard to shard.
    elsewhere = changed(config, data__store_dir=config.data.store_dir + "2")
    assert drawn(elsewhere) == [first, second]
    assert drawn(changed(config, seed=1)) != [first, second]


def test_bad_line_is_named_by_file_and_line(config, tmp_path):
    path = tmp_path / "data" / "train.jsonl"
    tokenizer = prepare(config, log=quiet).tokenizer_path
    config = changed(config, tokenizer=TokenizerConfig(path=tokenizer))
    lines = path.read_text().splitlines()
    lines[41] = '{"inputs": "a", "targets": 5}'
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl:42: .*targets.*expected a text"):
        prepare(config, log=quiet)
    lines[41] = '{"inputs": '
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl:42: "):
        prepare(config, log=quiet)
    assert not list((tmp_path / "stores").glob("made-train-*/../*.json"))


def test_a_task_of_which_too_much_is_dropped(config):
    base = prepare(config, log=quiet)
    limit = int(np.sort(base.mixture.stores[0].lengths)[60])
    short = changed(
        config,
        data__max_length=limit,
        tokenizer=TokenizerConfig(path=base.tokenizer_path),
    )
    kept = int((base.mixture.stores[0].lengths <= limit).sum())
    for _ in range(2):  # Also when the store is there already, also on the fast path.
        with pytest.raises(UserError, match=rf"'made'.* {95 - kept} of 95 .*too_long {95 - kept}"):
            open_or_prepare(short, log=quiet)
    _, mixture = open_or_prepare(changed(short, data__max_dropped_fraction=1.0), log=quiet)
    assert len(mixture.stores[0]) == kept
    with pytest.raises(UserError, match="max_dropped_fraction"):
        open_or_prepare(short, log=quiet)
    with pytest.raises(UserError, match="no example is left to use .*too_long 95"):
        open_or_prepare(changed(short, data__max_length=4), log=quiet)


def test_names_that_do_not_exist(config):
    for change, message in (
        ({"data__mixture": "maed"}, "data.mixture.*'maed'.*did you mean 'made'"),
        ({"data__split": "valid"}, "data.mixture.*split 'valid'.*train, validation"),
        ({"data__modules": ("made_taks",)}, "data.modules.*'made_taks'"),
        ({"data__mixture": ""}, "data.mixture is empty"),
        ({"tokenizer": TokenizerConfig()}, "tokenizer.path is empty"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(changed(config, **change), log=quiet)
