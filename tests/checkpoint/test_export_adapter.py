"""LoRA workdirs: what they load as, merged export, and the PEFT format as `peft` reads it."""

import dataclasses
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
from ift_jax.sharding import rules
from ift_jax.sharding.trees import checksum
from ift_jax.text.tokenizers.load import load_tokenizer
from tests.interop.folders import (
    config_from,
    load_in_transformers,
    logits,
    write_folder,
)
from tests.models import hugging_face as hf


def write_run(folder, base, lora, **fields):
    """A workdir as a LoRA run leaves it, with random adapters: its config, model, parameters."""
    config = resolve_init(
        dataclasses.replace(config_from(base, **fields), lora=lora, format=FormatConfig("plain"))
    )
    model, plain = trained_model(config), build_model(config.model)
    tokenizer = load_tokenizer(config.tokenizer.path)
    shardings = rules.tree_shardings(hf.mesh(), plain.logical_axes, plain.shapes)
    params = init_params(plain, config, shardings, tokenizer)
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        # Larger ones make T5's unscaled scores so steep that float32 noise decides a softmax.
        lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.15, jnp.float32),
        model.split(model.shapes)[0],
    )
    folder.mkdir()
    save_description(str(folder), config, tokenizer)
    checkpoints = Checkpoints(str(folder))
    frozen = model.cast_frozen(model.split(params)[1])
    checkpoints.save(3, {"params": adapters, "frozen_sum": checksum(frozen)})
    checkpoints.close()
    return config, model, join(adapters, params)


def ours(model, params, name):
    """Logits of our model for the batch of `logits`."""
    rng = np.random.default_rng(3)
    ids = rng.integers(3, hf.VOCAB, (2, 21)).astype(np.int32)

    def part(prefix, tokens):
        positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
        names = ("tokens", "segment_ids", "positions")
        return {
            prefix + n: a for n, a in zip(names, (tokens, tokens * 0 + 1, positions), strict=True)
        }

    t5 = name in hf.T5S
    batch = part("encoder_", ids) | part("decoder_", ids[:, :9]) if t5 else part("", ids)
    return jax.jit(lambda p: model.logits(p, model.hidden(p, batch)))(params)


ALL, SOME = "attention|cross|mlp", r"^layers.*(query|value)|decoder.*(cross.key|mlp.down)"


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        ("llama", LoraConfig(rank=4, alpha=8.0, targets=ALL)),
        ("qwen2", LoraConfig(rank=3, alpha=6.0, rslora=True, targets=SOME)),
        ("gemma2", LoraConfig(rank=2, alpha=3.0, targets=ALL)),
        ("1.1", LoraConfig(rank=4, alpha=8.0, rslora=True, targets=ALL)),
        ("1.0", LoraConfig(rank=4, alpha=8.0, targets=SOME)),
    ],
)
def test_peft_and_the_merged_export_give_our_logits(name, lora, tmp_path):
    # Imported here, since it takes seconds that no other test needs.
    peft = pytest.importorskip("peft", reason="the adapters are read back by peft")
    base, run = write_folder(tmp_path / "base", name), tmp_path / "run"
    kind = dict(architecture="encoder_decoder") if name in hf.T5S else {}
    _, model, params = write_run(run, base, lora, **kind)
    want = ours(model, params, name)
    trained = load_model(open_model_source(str(run)))
    np.testing.assert_allclose(
        ours(trained.model, trained.params, name), want, atol=2e-4, rtol=2e-4
    )
    plain = logits(load_in_transformers(base, name), name)
    assert np.abs(plain - want).max() > 0.05  # The adapters matter.
    assert main(["export", "--workdir", str(run), "--output", str(tmp_path / "merged")]) == 0
    merged = logits(load_in_transformers(tmp_path / "merged", name), name)
    np.testing.assert_allclose(merged, want, atol=2e-4, rtol=2e-4)
    output = tmp_path / "adapter"
    assert main(["export", "--workdir", str(run), "--output", str(output), "--adapter"]) == 0
    fields = json.loads((output / "adapter_config.json").read_text())
    assert fields["base_model_name_or_path"] == str(base)
    adapted = peft.PeftModel.from_pretrained(load_in_transformers(base, name), str(output))
    np.testing.assert_allclose(logits(adapted, name), want, atol=2e-4, rtol=2e-4)
    n_adapted = sum(1 for n, _ in adapted.named_parameters() if "lora_A" in n)
    assert (
        n_adapted
        == sum(leaf.shape[0] for leaf in jax.tree.leaves(model.split(model.shapes)[0])) // 2
    )


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
