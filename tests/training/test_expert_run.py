"""Runs of new mechanisms from a random Hugging Face folder: sharded, resumed, exported again."""

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.load_model import load_model  # noqa: E402
from ift_jax.checkpoint.open_model import open_model_source  # noqa: E402
from ift_jax.commands.main import main  # noqa: E402
from tests.interop.folders import load_in_transformers, logits  # noqa: E402
from tests.models import hugging_face as hf  # noqa: E402
from tests.training.released_runs import train_whole_and_resumed  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_device")
# A mechanism -> a model with it, and the fields of its run.
RUNS = {
    "experts": (
        "qwen3_moe",
        ("mesh.expert=2", "loss.router_balance=0.1", "loss.router_z_loss=0.01"),
    ),
    "per-layer embeddings": ("gemma4", ("mesh.fsdp=2",)),
    "delta rule": ("qwen3_5", ("mesh.fsdp=2",)),
    "quantized base": ("llama", ("mesh.fsdp=2", "lora.rank=4", "lora.quantize=nf4")),
}


@pytest.mark.parametrize("mechanism", RUNS)
def test_a_run_resumes_bit_for_bit_and_is_served_by_transformers(mechanism, tmp_path, monkeypatch):
    name, own_fields = RUNS[mechanism]
    fields = (*own_fields, "mesh.data=1", "data.max_length=32", "train.batch_size=8")
    whole = train_whole_and_resumed(name, tmp_path, monkeypatch, n_devices=2, fields=fields)
    if "router" in whole[-1]:
        router = whole[-1]["router"]
        assert router["dropped"] == 0 and router["balance"] > 1 and len(router["entropy"]) == 3
    assert ("router" in whole[-1]) == (mechanism == "experts")

    out = tmp_path / "exported"
    assert main(["export", "--workdir", str(tmp_path / "resumed"), "--output", str(out)]) == 0
    theirs = load_in_transformers(out, name)
    assert theirs.config.model_type == hf.reference(name).config.model_type
    loaded = load_model(open_model_source(str(tmp_path / "resumed")))
    ids = np.random.default_rng(3).integers(3, hf.VOCAB, (2, 21)).astype(np.int32)  # As `logits`.
    positions = np.broadcast_to(np.arange(21, dtype=np.int32), ids.shape)
    batch = {"tokens": ids, "segment_ids": np.ones_like(ids), "positions": positions}
    model = loaded.model
    ours = jax.jit(lambda params: model.logits(params, model.hidden(params, batch)))(loaded.params)
    np.testing.assert_allclose(ours, logits(theirs, name), atol=2e-4, rtol=0)
    before = logits(hf.reference(name), name)
    assert np.abs(logits(theirs, name)[..., : hf.VOCAB] - before).max() > 0.05
