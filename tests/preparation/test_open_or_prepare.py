"""A mixture that was prepared before is opened without TensorFlow, unless something changed."""

import os

import pytest

from ift_jax.preparation import prepare as prepare_module
from ift_jax.preparation.open_or_prepare import open_or_prepare
from tests.preparation.runs import child, edit_helper, quiet, write_lines

pytestmark = pytest.mark.usefixtures("own_registry")


def test_fast_path_imports_no_tensorflow_and_notices_changes(config, tmp_path):
    for which in ("train", "eval"):
        open_or_prepare(config, which, log=quiet)
    code = """
        tokenizer, mixture = open_or_prepare(config, log=log)
        open_or_prepare(config, "eval", log=log)
        [store] = mixture.stores
        print(mixture.tasks, mixture.rates, store.path, mixture.metric_fns, tokenizer.vocab_size)
        print(len(store), int(store.tokens(3).sum()))
        for name in ("tensorflow", "seqio", "jax", "made_tasks"):
            assert name not in sys.modules, name
    """
    out, err = child(config, code).communicate(timeout=60)
    tokenizer, mixture = open_or_prepare(config, log=quiet)
    [store] = mixture.stores
    assert err == ""
    assert out.splitlines() == [
        f"{mixture.tasks} {mixture.rates} {store.path} {mixture.metric_fns} {tokenizer.vocab_size}",
        f"{len(store)} {int(store.tokens(3).sum())}",
    ]


def test_changes_of_files_are_noticed(config, tmp_path, monkeypatch):
    open_or_prepare(config, log=quiet)
    lines = []
    os.utime(tmp_path / "modules" / "made_helper.py", (1, 1))  # Touched, but equal.
    open_or_prepare(config, log=lines.append)
    assert lines == []
    calls = []
    prepare = prepare_module.prepare

    def counted(*args, **kwargs):
        calls.append(args)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(prepare_module, "prepare", counted)
    (tmp_path / "data" / "new.jsonl").write_text("")  # A file that a pattern might match,
    open_or_prepare(config, log=quiet)
    assert len(calls) == 1
    open_or_prepare(config, log=quiet)  # which is in the note from then on.
    assert len(calls) == 1
    write_lines(tmp_path / "data" / "train.jsonl", 50)
    assert len(open_or_prepare(config, log=quiet)[1].stores[0]) == 50
    edit_helper(tmp_path, "VALUE = 3\n")
    open_or_prepare(config, log=quiet)
    assert len(calls) == 3
