"""A run of an encoder-decoder from a Hugging Face folder: packed, resumed, exported again."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.load_model import load_model  # noqa: E402
from ift_jax.checkpoint.open_model import open_model_source  # noqa: E402
from ift_jax.commands.main import main  # noqa: E402
from tests.interop.folders import load_in_transformers  # noqa: E402
from tests.models import hugging_face as hf  # noqa: E402
from tests.training.released_runs import train_whole_and_resumed  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_device")
NAME = "t5gemma2"


def test_a_run_resumes_bit_for_bit_and_is_served_by_transformers(tmp_path, monkeypatch, capsys):
    fields = ("data.inputs_length=32", "data.targets_length=16", "train.batch_size=2")
    train_whole_and_resumed(NAME, tmp_path, monkeypatch, n_devices=1, fields=fields)
    shown = capsys.readouterr()
    assert "tensors of images not read" in shown.err + shown.out

    out = tmp_path / "exported"
    assert main(["export", "--workdir", str(tmp_path / "resumed"), "--output", str(out)]) == 0
    assert "makes the smallest vision tower" in capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert config["decoder"]["bos_token_id"] == config["decoder_start_token_id"] == 2
    theirs = load_in_transformers(out, NAME)
    loaded = load_model(open_model_source(str(tmp_path / "resumed")))
    assert not loaded.config.format.input_eos
    ids = np.random.default_rng(3).integers(3, hf.VOCAB, (1, 21)).astype(np.int32)
    ids[:, 0] = loaded.model.config.decoder_start_id
    arrays = dict(tokens=ids, segment_ids=np.ones_like(ids), positions=np.arange(21)[None])
    batch = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in arrays.items()}
    model = loaded.model
    ours = jax.jit(lambda params: model.logits(params, model.hidden(params, batch)))(loaded.params)
    with hf.torch.no_grad():
        wanted = theirs(
            input_ids=hf.torch.tensor(ids), decoder_input_ids=hf.torch.tensor(ids)
        ).logits.numpy()
    np.testing.assert_allclose(ours, wanted, atol=2e-4, rtol=0)
