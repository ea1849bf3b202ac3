"""The real loaders read the sample data into token stores, or say which data is missing."""

import pytest

from ift_jax.config.schema import Config, DataConfig, FormatConfig, TokenizerConfig
from ift_jax.errors import UserError
from ift_jax.preparation.open_or_prepare import open_or_prepare
from tests.shared_data import SHARED, requires_shared

pytestmark = [pytest.mark.usefixtures("own_registry"), requires_shared]
M_MODEL = SHARED / "data" / "tokenizers" / "m.model"  # 2,000 pieces.


def _prepare(tmp_path, module, mixture, split, root=SHARED / "data", **data):
    from ift_jax.preparation import seqio_registry

    seqio_registry._registered.clear()
    settings = {"max_length": 2048, "max_dropped_fraction": 0.1} | data
    config = Config(
        tokenizer=TokenizerConfig(path=str(M_MODEL)),
        format=FormatConfig(template="tulu"),
        data=DataConfig(
            modules=(module,),
            root=str(root),
            mixture=mixture,
            split=split,
            processes=1,
            store_dir=str(tmp_path),
            **settings,
        ),
    )
    _, opened = open_or_prepare(config, "train", log=lambda line: None)
    return opened


@pytest.mark.parametrize(
    ("module", "mixture", "split", "root", "examples"),
    [
        ("tasks.gsm8k.tasks", "gsm8k", "train", "", 760),
        ("tasks.gsm8k.tasks", "gsm8k", "test", "", 400),
        ("tasks.self_instruct", "self_instruct_seeds", "all", "", 175),
        ("tasks.self_instruct", "self_instruct_user_oriented", "test", "", 252),
        ("tasks.open_assistant", "open_assistant_best", "all", "chat", 100),
        ("tasks.sharegpt", "sharegpt", "all", "chat/vicuna_dummy_conversation.json", 150),
    ],
)
def test_prepared(tmp_path, module, mixture, split, root, examples):
    opened = _prepare(tmp_path, module, mixture, split, SHARED / "data" / root)
    [store] = opened.stores
    assert 0.9 * examples <= len(store) <= examples
    assert all(store.prompt_lengths[i] > 0 for i in range(0, len(store), 10))


def test_every_answer_of_the_trees_is_trained_once(tmp_path):
    opened = _prepare(
        tmp_path, "tasks.open_assistant", "open_assistant", "all", SHARED / "data" / "chat"
    )
    assert 500 <= len(opened.stores[0]) <= 546


def test_data_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError) as error:
        _prepare(tmp_path, "tasks.tulu", "tulu3_sft", "train")
    assert str(error.value).startswith("allenai/tulu-3-sft-mixture: the split 'train' is not on")
    assert "\n" not in str(error.value)
