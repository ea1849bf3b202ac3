"""Workdirs of LoRA runs: loading them, exporting them merged, and in the format of `peft`."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.init_from import init_params, resolve_init
from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.run_description import save_description
from ift_jax.commands.main import main
from ift_jax.config.schema import FormatConfig, LoraConfig
from ift_jax.errors import UserError
from ift_jax.models.model import build_model, join, trained_model
from ift_jax.models.quantization import dequantize, quantize
from ift_jax.sharding import rules
from ift_jax.sharding.checksums import tree_checksum
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.interop.folders import config_from, load_in_transformers, logits, write_folder
from tests.interop.test_text_part import write_multimodal
from tests.models import hugging_face as hf

pytestmark = pytest.mark.usefixtures("one_device")


def write_run(folder, base, lora, **fields):
    """Writes a workdir as a LoRA run leaves it, with random adapters.

    Returns the model with its adapters, and all of its parameters.
    """
    config = resolve_init(
        dataclasses.replace(config_from(base, **fields), lora=lora, format=FormatConfig("plain"))
    )
    model, plain = trained_model(config), build_model(config.model)
    tokenizer = load_tokenizer(config.tokenizer.path)
    shardings = rules.tree_shardings(hf.mesh(), plain.logical_axes, plain.shapes)
    params = init_params(plain, config, shardings, tokenizer)
    rng = np.random.default_rng(0)

    def random_adapter(shape):
        # Larger ones make T5's unscaled scores so steep that float32 noise decides a softmax.
        return jnp.asarray(rng.normal(size=shape.shape) * 0.15, jnp.float32)

    adapters = jax.tree.map(random_adapter, model.split(model.shapes)[0])
    folder.mkdir()
    save_description(str(folder), config, tokenizer)
    checkpoints = Checkpoints(str(folder))
    frozen = model.cast_frozen(model.split(params)[1])
    checkpoints.save(3, {"params": adapters, "frozen_sum": jax.jit(tree_checksum)(frozen)})
    checkpoints.close()
    return model, join(adapters, frozen)


@functools.partial(jax.jit, static_argnums=1)
def rounded_weight(weight, kind):
    return dequantize(quantize(weight, kind), jnp.float32)


def round_weights(theirs, kind):
    """Gives a model of `transformers` the weights that a quantized base stands for."""
    for name, module in theirs.named_modules():
        if isinstance(module, hf.torch.nn.Linear) and name != "lm_head":
            rounded = rounded_weight(jnp.asarray(module.weight.detach().T), kind)
            module.weight.data = hf.torch.tensor(np.array(rounded.T))
    return theirs


def logits_of_ours(model, params, name):
    """Logits of our model for the batch of `logits`."""
    rng = np.random.default_rng(3)
    ids = rng.integers(3, hf.VOCAB, (2, 21)).astype(np.int32)

    def arrays(prefix, tokens):
        positions = np.arange(tokens.shape[1], dtype=np.int32)
        return {
            f"{prefix}tokens": tokens,
            f"{prefix}segment_ids": np.ones_like(tokens),
            f"{prefix}positions": np.broadcast_to(positions, tokens.shape),
        }

    if name in hf.T5S:
        batch = {**arrays("encoder_", ids), **arrays("decoder_", ids[:, :9])}
    else:
        batch = arrays("", ids)
    return jax.jit(lambda p: model.logits(p, model.hidden(p, batch)))(params)


ALL = "attention|cross|mlp"
PATTERNS = dict(rank_pattern=("mlp.up|query=3", "mlp=1"), alpha_pattern=("down|key=5",))
SOME = r"^layers.*(query|value)|decoder.*(cross.key|mlp.down)"


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        ("llama", LoraConfig(rank=4, alpha=8.0, targets=ALL)),
        ("qwen2", LoraConfig(rank=3, alpha=6.0, rslora=True, targets=SOME, dora=True)),
        ("gemma2", LoraConfig(rank=2, targets=ALL, dora=True, quantize="nf4", **PATTERNS)),
        ("qwen3_5", LoraConfig(rank=2, alpha=3.0, targets=ALL)),
        ("gemma4", LoraConfig(rank=2, alpha=3.0, targets=ALL)),
        ("1.1", LoraConfig(rank=4, alpha=8.0, rslora=True, targets=ALL, **PATTERNS)),
        ("1.0", LoraConfig(rank=4, alpha=8.0, targets=SOME, dora=True, dropout=0.1)),
        (
            "qwen3_moe",
            LoraConfig(rank=2, alpha=3.0, rslora=True, targets=ALL, alpha_pattern=("query=5",)),
        ),
    ],
)
def test_peft_and_the_merged_export_give_our_logits(name, lora, tmp_path):
    # Imported here, since it takes seconds that no other test needs.
    peft = pytest.importorskip("peft", reason="the adapters are read back by peft")
    base, run = write_folder(tmp_path / "base", name), tmp_path / "run"
    kind = dict(architecture="encoder_decoder") if name in hf.T5S else {}
    model, params = write_run(run, base, lora, **kind)
    want = logits_of_ours(model, params, name)

    def assert_near(got):
        np.testing.assert_allclose(got, want, atol=2e-4, rtol=2e-4)

    loaded = load_model(open_model_source(str(run)))
    assert_near(logits_of_ours(loaded.model, loaded.params, name))
    theirs = load_in_transformers(base, name)
    if lora.quantize != "none":
        theirs = round_weights(theirs, lora.quantize)
    without_adapters = logits(theirs, name)
    assert np.abs(without_adapters - want).max() > 0.05  # The adapters matter.

    merged, output = tmp_path / "merged", tmp_path / "adapter"
    assert main(["export", "--workdir", str(run), "--output", str(merged)]) == 0
    assert_near(logits(load_in_transformers(merged, name), name))
    assert main(["export", "--workdir", str(run), "--output", str(output), "--adapter"]) == 0
    fields = json.loads((output / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(base)
    adapted = peft.PeftModel.from_pretrained(theirs, str(output))
    assert_near(logits(adapted, name))
    if name == "qwen3_moe":
        return  # `peft` joins the experts' adapters.
    n_adapted = sum(1 for path, _ in adapted.named_parameters() if "lora_A" in path)
    # A stacked array holds one matrix of every layer; each projection has two arrays, or three.
    stacked = jax.tree.leaves(model.split(model.shapes)[0])
    assert n_adapted == sum(array.shape[0] for array in stacked) // (3 if lora.dora else 2)


@pytest.mark.parametrize("kind", ["gemma3", "qwen3_5"])
def test_adapters_of_a_text_part_fit_the_whole_model(kind, tmp_path):
    peft = pytest.importorskip("peft", reason="the adapters are read back by peft")
    base, run, output = tmp_path / "base", tmp_path / "run", tmp_path / "adapter"
    whole = write_multimodal(base, kind)
    model, params = write_run(run, base, LoraConfig(rank=2, alpha=3.0, targets=ALL))
    assert main(["export", "--workdir", str(run), "--output", str(output), "--adapter"]) == 0
    want = logits_of_ours(model, params, kind)
    assert np.abs(logits(whole, kind) - want).max() > 0.05  # The adapters matter.
    adapted = peft.PeftModel.from_pretrained(whole, str(output))
    np.testing.assert_allclose(logits(adapted, kind), want, atol=2e-4, rtol=2e-4)


def test_another_base_and_a_base_that_peft_cannot_load(tmp_path, capsys):
    released = write_folder(tmp_path / "released", "llama")
    base, run = tmp_path / "base", tmp_path / "run"
    import_model(str(released), str(base))
    write_run(run, base, LoraConfig(rank=2), dtype="bfloat16")
    load_model(open_model_source(str(run)))
    export = ["export", "--workdir", str(run), "--adapter", "--output", str(tmp_path / "out")]
    assert main(export) == 2
    assert "--base" in capsys.readouterr().err
    assert main([*export, "--base", "org/model"]) == 0
    assert main(["export", "--workdir", str(base), "--adapter", "--output", "x"]) == 2
    assert "no LoRA adapters here" in capsys.readouterr().err
    # The same folder with other weights.
    checkpoints = Checkpoints(str(base))
    params = load_model(open_model_source(str(base))).params
    params["final_norm"]["scale"] = params["final_norm"]["scale"].at[0].add(1e-3)
    checkpoints.save(1, {"params": params})
    checkpoints.close()
    with pytest.raises(UserError, match="its weights are not those that this run was trained on"):
        load_model(open_model_source(str(run)))
