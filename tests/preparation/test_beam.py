"""Preparing with Apache Beam: the same bytes and errors as without, and checked options."""

import os
import sys

import pytest

from ift_jax.config.schema import TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation.beam import checked_options
from ift_jax.preparation.prepare import prepare
from tests.preparation.runs import REPOSITORY, changed, contents, quiet, store_of

pytestmark = pytest.mark.usefixtures("own_registry")


def on_direct_runner(*options):
    pytest.importorskip("apache_beam")

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
