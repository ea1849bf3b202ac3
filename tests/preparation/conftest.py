"""A run on generated lines, of a module in a folder of its own."""

import sys
import textwrap

import pytest

from ift_jax.config.schema import Config, DataConfig, TokenizerConfig
from ift_jax.preparation import shards
from tests.preparation.runs import MODULE, write_lines


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
