"""Preparing stores from SeqIO tasks: keys, restarts, processes, errors, rates."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from ift_jax.config.schema import Config, DataConfig, FormatConfig, OptimizerConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.io.locks import build_lock
from ift_jax.preparation import shards
from ift_jax.preparation.module_files import module_files
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.preparation.prepare import prepare

pytestmark = pytest.mark.usefixtures("own_registry")

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = """
    from ift_jax.sources.register import register_jsonl_task
    import made_helper

    def register(root):
        files = {split: f"{root}/{split}.jsonl" for split in ("train", "validation")}
        register_jsonl_task("made", files)
"""


def quiet(_):
    pass


def write_lines(path, n, first=0):
    text = "Please add these two numbers: {i} and {i}. Write the sum, nothing else. add {i} and {i}"
    lines = [
        {"inputs": "Friend! " * (i % 6) + text.format(i=i), "targets": str(2 * i)}
        for i in range(first, first + n)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on 95 + 15 generated lines, of a module in a folder of its own."""
    (tmp_path / "data").mkdir()
    write_lines(tmp_path / "data" / "train.jsonl", 95)
    write_lines(tmp_path / "data" / "validation.jsonl", 15, 200)
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "made_tasks.py").write_text(textwrap.dedent(MODULE))
    (modules / "made_helper.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(str(modules))
    for name in ("made_tasks", "made_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(shards, "EXAMPLES_PER_SHARD", 40)
    return Config(
        tokenizer=TokenizerConfig(train_vocab_size=300),
        data=DataConfig(
            modules=("made_tasks",),
            root=str(tmp_path / "data"),
            mixture="made",
            store_dir=str(tmp_path / "stores"),
            max_length=512,
            processes=1,
        ),
    )


def changed(config, **kwargs):
    """`data__max_length=3` changes config.data.max_length."""
    for name, value in kwargs.items():
        room, _, field = name.partition("__")
        if field:
            value = dataclasses.replace(getattr(config, room), **{field: value})
        config = dataclasses.replace(config, **{room: value})
    return config


def child(config, code, per_shard=40):
    """Starts another Python process with `config`."""
    script = (
        "from ift_jax.config.schema import *\nfrom ift_jax.preparation import shards\n"
        "from ift_jax.preparation.prepare import prepare\n"
        "from ift_jax.preparation.open_or_prepare import open_or_prepare\n"
        "import functools, os, sys\n"
        "log = functools.partial(print, flush=True)\n"
        f"shards.EXAMPLES_PER_SHARD = {per_shard}\nconfig = {config!r}\n{textwrap.dedent(code)}\n"
    )
    path = os.pathsep.join([str(REPOSITORY), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def contents(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def store_of(config, which="train"):
    return prepare(config, which, log=quiet).mixture.stores[0]


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
    from ift_jax.config.schema import EncoderDecoderConfig

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
    (tmp_path / "modules" / "made_helper.py").write_text("VALUE = 2\n")
    assert store_of(config).path not in paths | {base, new_data.path}


def test_imports_are_followed_to_the_files_that_matter(config, tmp_path):
    import importlib

    package = tmp_path / "modules" / "made_package"
    package.mkdir()
    (package / "__init__.py").write_text("from . import inner\n")
    (package / "inner.py").write_text("def late():\n    from made_helper import VALUE\n")
    (package / "unused.py").write_text("")
    importlib.invalidate_caches()
    names = [p.name for p in module_files(["made_package"])]
    assert sorted(names) == ["__init__.py", "inner.py", "made_helper.py"]


def test_fast_path_imports_no_tensorflow_and_notices_changes(config, tmp_path):
    for which in ("train", "eval"):
        open_or_prepare(config, which, log=quiet)
    code = """
        tokenizer, view = open_or_prepare(config, log=log)
        open_or_prepare(config, "eval", log=log)
        print(view.tasks, view.rates, view.stores[0].path, view.metric_fns, tokenizer.vocab_size)
        print(len(view.stores[0]), int(view.stores[0].tokens(3).sum()))
        for name in ("tensorflow", "seqio", "jax", "made_tasks"):
            assert name not in sys.modules, name
    """
    out, err = child(config, code).communicate(timeout=60)
    tokenizer, view = open_or_prepare(config, log=quiet)
    store = view.stores[0]
    assert err == ""
    assert out.splitlines() == [
        f"{view.tasks} {view.rates} {store.path} {view.metric_fns} {tokenizer.vocab_size}",
        f"{len(store)} {int(store.tokens(3).sum())}",
    ]
    # Touched but equal: still fast. Changed, or another file of the same kind: not.
    lines = []
    os.utime(tmp_path / "modules" / "made_helper.py", (1, 1))
    open_or_prepare(config, log=lines.append)
    assert lines == []
    (tmp_path / "data" / "new.jsonl").write_text("")
    from ift_jax.preparation import prepare as module

    calls = []
    real = module.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "prepare", lambda *a, **k: calls.append(a) or real(*a, **k))
        open_or_prepare(config, log=quiet)  # The folder has another file: asked anew,
        assert len(calls) == 1
        open_or_prepare(config, log=quiet)  # and noted.
        assert len(calls) == 1
        write_lines(tmp_path / "data" / "train.jsonl", 50)
        assert len(open_or_prepare(config, log=quiet)[1].stores[0]) == 50
        (tmp_path / "modules" / "made_helper.py").write_text("VALUE = 3\n")
        open_or_prepare(config, log=quiet)
        assert len(calls) == 3


@pytest.mark.slow
def test_killed_halfway_and_restarted_gives_the_same_bytes(config, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "EXAMPLES_PER_SHARD", 5)
    process = child(config, "prepare(config, log=log)", 5)
    stores = tmp_path / "stores"
    deadline = time.time() + 120
    while len(list(stores.glob("made-*.partial/*.json"))) < 3:
        assert process.poll() is None and time.time() < deadline, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (partial,) = stores.glob("made-*.partial")
    finished = {p.name: p.stat().st_mtime_ns for p in partial.glob("part-*")}
    finished = {n: t for n, t in finished.items() if (partial / n).with_suffix(".json").exists()}
    assert 6 <= len(finished) < 38
    (partial / ".part-00009.arrow.1.tmp").write_bytes(b"half")
    lines = []
    store = prepare(config, log=lines.append).mixture.stores[0]
    assert any("parts are there already" in line for line in lines)
    assert {n: (store.path / n).stat().st_mtime_ns for n in finished} == finished  # Not redone.
    whole = store_of(changed(config, data__store_dir=str(tmp_path / "other")))
    assert contents(store.path) == contents(whole.path)
    assert not partial.exists() and len(contents(store.path)) == 39


@pytest.mark.slow
def test_two_processes_that_want_the_same_store(config, tmp_path):
    prepare(config, log=quiet)
    wanted = changed(config, data__max_length=400)
    name = store_of(changed(wanted, data__store_dir=str(tmp_path / "other"))).path.name
    # The tokenizer has another place there, not another content; so the name is the same.
    with build_lock(tmp_path / "stores", name, quiet):
        children = [child(wanted, "prepare(config, log=log)") for _ in range(2)]
        seen = [[], []]
        for process, lines in zip(children, seen, strict=True):
            for line in process.stdout:
                lines.append(line)
                if "waiting for another process" in line:
                    break
    for process, lines in zip(children, seen, strict=True):
        out, err = process.communicate(timeout=120)
        lines += out.splitlines()
        assert process.returncode == 0, err
    # The last part of three was made once, by whichever came first.
    assert sum(line.strip().startswith("part 3 of 3") for line in sum(seen, [])) == 1
    assert len(contents(tmp_path / "stores" / name)) == 7


@pytest.mark.slow
def test_processes_make_the_same_bytes_and_the_same_errors(config, tmp_path):
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    config = changed(config, tokenizer=tokenizer, data__variants=2)
    alone = store_of(config)
    several = changed(config, data__processes=2, data__store_dir=str(tmp_path / "other"))
    script = tmp_path / "run.py"  # Spawned processes import the main file.
    code = f"""
        from ift_jax.config.schema import *
        from ift_jax.preparation import shards
        from ift_jax.preparation.prepare import prepare
        from ift_jax.errors import UserError

        shards.EXAMPLES_PER_SHARD = 40
        if __name__ == "__main__":
            try:
                prepare({several!r})
            except UserError as error:
                print("error:", error)
    """
    script.write_text(textwrap.dedent(code))

    def run():
        path = os.pathsep.join([str(REPOSITORY), *sys.path])
        return subprocess.run(
            [sys.executable, script],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=250,
        )

    first = run()
    assert first.stderr == ""
    assert contents(alone.path) == contents(tmp_path / "other" / alone.path.name)
    bad = tmp_path / "data" / "train.jsonl"
    bad.write_text(bad.read_text() + '{"inputs": "x"}\n')
    second = run()
    assert second.stderr == ""
    assert second.stdout.splitlines()[-1].startswith(f"error: {bad}:96: field 'targets' is missing")


def test_bad_line_is_named_by_file_and_line(config, tmp_path):
    path = tmp_path / "data" / "train.jsonl"
    tokenizer = prepare(config, log=quiet).tokenizer_path
    config = changed(config, tokenizer=TokenizerConfig(path=tokenizer))
    lines = path.read_text().splitlines()
    lines[41] = '{"inputs": "a", "targets": 5}'
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl:42: .*targets.*expected a string"):
        prepare(config, log=quiet)
    lines[41] = '{"inputs": '
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"train\.jsonl:42: "):
        prepare(config, log=quiet)
    assert not list((tmp_path / "stores").glob("made-train-*/../*.json"))


def test_a_task_of_which_too_much_is_refused(config):
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
    _, view = open_or_prepare(changed(short, data__max_dropped_fraction=1.0), log=quiet)
    assert len(view.stores[0]) == kept
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


def add_tokenised_task(name, vocabulary, extra=()):
    import seqio
    import tensorflow as tf

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
def test_seqio_task_that_tokenises_itself(config, extra_ids):
    import seqio.test_utils

    from ift_jax.config.schema import EncoderDecoderConfig

    vocabulary = seqio.test_utils.sentencepiece_vocab(extra_ids=extra_ids)
    task = add_tokenised_task("own_ids", vocabulary)
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
    import seqio.test_utils
    import tensorflow as tf

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

    add_tokenised_task("negative", vocabulary, [negative_first])
    task = add_tokenised_task("weighted", vocabulary)
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


def test_rates_of_nested_mixtures_are_those_of_seqio(config):
    import functools

    import seqio
    import tensorflow as tf

    from ift_jax.preparation.mixing_rates import mixing_rates
    from ift_jax.sources.features import TEXT_FEATURES

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
    # Examples that were refused do not count, as SeqIO has it for a cached task.
    tasks = list(mixture.tasks)
    counts = {"a": 10, "b": 40, "c": 64, "d": 7}
    rates = mixing_rates(seqio.MixtureRegistry.get("inner"), tasks[:3], "train", counts)
    np.testing.assert_allclose(rates, [10**0.5, 3.0, 8.0])
    seqio.MixtureRegistry.add("wrong", [("inner", capped)])
    with pytest.raises(UserError, match="'inner'.*must be a number"):
        mixing_rates(seqio.MixtureRegistry.get("wrong"), tasks[:1], "train", {})


def test_trained_tokenizer_is_shared_by_all_splits(config):
    train = prepare(config, log=quiet)
    lines = []
    unseen = prepare(config, "eval", log=lines.append)
    assert unseen.tokenizer_path == train.tokenizer_path
    assert not any("training a tokenizer" in line for line in lines)
    assert len(unseen.mixture.stores[0]) == 15
    assert prepare(config, log=quiet).tokenizer.fingerprint == train.tokenizer.fingerprint


def on_direct_runner(*options):
    pytest.importorskip("apache_beam")
    from ift_jax.preparation.beam import checked_options

    return checked_options("DirectRunner", options)


def test_beam_makes_the_same_bytes_and_the_same_errors(config, tmp_path):
    beam = on_direct_runner()
    tokenizer = TokenizerConfig(prepare(config, log=quiet).tokenizer_path)
    config = changed(config, tokenizer=tokenizer, data__variants=2)
    alone = store_of(config).path
    other = changed(config, data__store_dir=str(tmp_path / "other"))
    store = prepare(other, log=quiet, beam=beam).mixture.stores[0].path
    assert contents(store) == contents(alone) and store != alone
    assert len(contents(store)) == 2 * 3 * 2 + 1
    # A worker's mistake ends in its line; once it is mended, nothing is left of it.
    bad = tmp_path / "data" / "train.jsonl"
    good = bad.read_text()
    bad.write_text(good + '{"inputs": "x"}\n')
    messages = []
    for how in ({}, {"beam": beam}):
        with pytest.raises(UserError) as caught:
            prepare(other, log=quiet, **how)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[1].startswith(f"{bad}:96: field 'targets' is missing")
    (partial,) = (tmp_path / "other").glob("*.partial")
    assert list(partial.glob("*.error"))
    bad.write_text(good + '{"inputs": "x", "targets": "y"}\n')
    mended = prepare(other, log=quiet, beam=beam).mixture.stores[0].path
    assert contents(mended).keys() == contents(alone).keys()


@pytest.mark.slow
def test_beam_in_processes_of_its_own(config, tmp_path, monkeypatch):
    beam = on_direct_runner("--direct_running_mode=multi_processing", "--direct_num_workers=2")
    alone = store_of(config)
    path = os.pathsep.join([str(REPOSITORY), str(tmp_path / "modules")])
    monkeypatch.setenv("PYTHONPATH", path)  # Or the workers would not find the tasks.
    other = changed(config, data__store_dir=str(tmp_path / "other"))
    store = prepare(other, log=quiet, beam=beam).mixture.stores[0]
    assert contents(store.path) == contents(alone.path)


def test_options_that_beam_does_not_take_are_refused(monkeypatch):
    pytest.importorskip("apache_beam")
    from ift_jax.preparation.beam import checked_options

    for runner, options, message in (
        ("DirectRunner", ["--direct_num_worker=2"], "mean '--direct_num_workers'"),
        ("DirectRunner", ["--direct_num_workers=two"], "direct_num_workers: invalid int value"),
        ("DirectRunner", ["word"], "word: no such option of Beam"),
        ("DirectRuner", [], "--runner DirectRuner: Unexpected pipeline runner"),
    ):
        with pytest.raises(UserError, match=message):
            checked_options(runner, options)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match="run launch/setup.sh beam"):
        checked_options("DirectRunner", [])
