"""A name on the Hugging Face Hub where a path is expected."""

import pytest

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config import data_items
from ift_jax.errors import UserError
from ift_jax.io.hub_names import hub_hint
from ift_jax.text.tokenizers.load import load_tokenizer

NAME = "meta-llama/Llama-3.1-8B"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_name_of_the_hub_is_told_from_a_path(tmp_path):
    hint = f"; if {NAME} is a name on the Hugging Face Hub, fetch it first: hf download {NAME}"
    assert hub_hint(NAME) == hub_hint(str(tmp_path / NAME)) == f"{hint} --local-dir FOLDER"
    assert " --repo-type dataset " in hub_hint(NAME, is_data=True)
    for path in ("/models/base", "model", "a/b/c", "./a/b", "../a/b", "gs://a/b", "a/b c"):
        assert hub_hint(path) == ""
    (tmp_path / "runs").mkdir()
    assert hub_hint("runs/mine") == ""


@pytest.mark.parametrize("opened", [open_model_source, load_tokenizer, data_items.parse])
def test_what_takes_a_path_says_how_to_fetch_a_name(opened):
    with pytest.raises(UserError, match=f"hf download {NAME} "):
        opened(NAME)
