"""GPT-OSS as it is released, its experts in MXFP4, against the dequantization of transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference models are torch modules")
transformers = pytest.importorskip("transformers", reason="the reference models live there")

from safetensors.torch import save_file  # noqa: E402
from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

from ift_jax.checkpoint.open_model import open_model_source  # noqa: E402
from ift_jax.errors import UserError  # noqa: E402
from ift_jax.interop import mxfp4  # noqa: E402
from ift_jax.interop.safetensors_files import Tensor  # noqa: E402
from ift_jax.models import build_model  # noqa: E402
from tests.interop.folders import edit_json, write_tokenizer  # noqa: E402
from tests.models import hugging_face as hf  # noqa: E402
from tests.models.architectures import jitted_logits, pack  # noqa: E402

RELEASED = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}


def write_released(folder):
    """A folder in MXFP4, and the model of the same weights in bfloat16's precision."""
    sizes = hf.SIZES | dict(hidden_size=64, intermediate_size=32, num_hidden_layers=2)
    config = transformers.GptOssConfig(
        **sizes, head_dim=16, sliding_window=5, num_local_experts=3, num_experts_per_tok=2
    )
    torch.manual_seed(0)
    model = hf.randomize(transformers.AutoModelForCausalLM.from_config(config))
    stored = {}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("_proj") or ".experts." not in name:
                weight.copy_(weight.to(torch.bfloat16))
                stored[name] = weight.to(torch.bfloat16)
                continue
            n_experts, n_inputs, n_outputs = weight.shape
            rows = (n_experts, n_outputs, n_inputs // 32)
            blocks = torch.randint(0, 256, (*rows, 16), dtype=torch.uint8)
            scales = torch.randint(121, 126, rows, dtype=torch.uint8)
            stored |= {name + mxfp4.BLOCKS: blocks, name + mxfp4.SCALES: scales}
            weight.copy_(convert_moe_packed_tensors(blocks, scales))
    folder.mkdir()
    config.save_pretrained(folder)
    edit_json(folder / "config.json", quantization_config=RELEASED)
    save_file(stored, folder / "model.safetensors")
    write_tokenizer(folder)
    return model


def test_a_released_folder_gives_the_logits_of_its_dequantized_weights(tmp_path, capsys):
    reference = write_released(tmp_path / "released")
    source = open_model_source(str(tmp_path / "released"))
    model = build_model(source.config.model)
    params = source.load_params(model, hf.mesh())
    assert "4 tensors in MXFP4 read as bfloat16; what is trained" in capsys.readouterr().err
    assert set(source.dtypes().values()) == {"BF16"}
    ours, theirs = params["layers"]["mlp"], reference.model.layers[1].mlp.experts
    np.testing.assert_array_equal(
        ours["gate"]["weight"][1], theirs.gate_up_proj[..., 0::2].detach()
    )
    np.testing.assert_array_equal(ours["up"]["weight"][1], theirs.gate_up_proj[..., 1::2].detach())
    np.testing.assert_array_equal(ours["down"]["weight"][1], theirs.down_proj.detach())
    tokens = np.random.default_rng(0).integers(3, hf.VOCAB, 23).tolist()
    with torch.no_grad():
        want = reference(torch.tensor([tokens])).logits.numpy()
    got = jitted_logits(model)(params, pack([[tokens]], 23))
    np.testing.assert_allclose(got, want, atol=2e-4, rtol=0)

    edit_json(tmp_path / "released" / "config.json", quantization_config={"quant_method": "awq"})
    with pytest.raises(UserError, match="quant_method is 'awq'; expected 'mxfp4'"):
        open_model_source(str(tmp_path / "released"))


def tensor(values):
    return Tensor(values.shape, values.dtype, lambda index: np.array(values[index]))


def test_any_part_of_a_weight_is_read_exactly():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (2, 6, 3, 16), np.uint8)
    scales = rng.integers(100, 140, (2, 6, 3), np.uint8)
    named = {"w_blocks": tensor(blocks), "w_scales": tensor(scales)}
    weight = mxfp4.dequantize(named, "here")["w"]
    whole = convert_moe_packed_tensors(torch.tensor(blocks), torch.tensor(scales)).float().numpy()
    assert weight.shape == whole.shape == (2, 96, 6) and weight.dtype == jnp.bfloat16
    everything = (slice(None),) * 3
    for index in (
        everything,
        (slice(1, 2), slice(31, 65), slice(1, 6, 2)),
        (slice(0, 2), slice(40, 41), slice(0, 6, 2)),
        (slice(0, 0), slice(None), slice(None)),
    ):
        np.testing.assert_array_equal(weight.read(index).astype(np.float32), whole[index])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"w_blocks": (2, 6, 3, 16)}, "here: w_blocks holds bytes; expected blocks and scales"),
        ({"ids": (4,)}, "here: ids holds bytes"),
        (
            {"w_blocks": (2, 6, 3, 8), "w_scales": (2, 6, 3)},
            r"blocks of shape \(2, 6, 3, 8\) and scales of shape \(2, 6, 3\); expected \(experts",
        ),
    ],
)
def test_bytes_that_are_no_weights_are_refused(shapes, message):
    named = {name: tensor(np.zeros(shape, np.uint8)) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=message):
        mxfp4.dequantize(named, "here")
