"""Runs that start from a Hugging Face folder, or from a workdir that was imported from one."""

import dataclasses

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.init_from import init_params, resolve_init
from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.config import files as config_file
from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.interop.hugging_face_weights import _mean_of_rows, fit_vocabulary
from ift_jax.models import build_model
from ift_jax.sharding import rules
from tests.interop.folders import config_from, edit_json, write_folder, write_tokenizer
from tests.models import hugging_face as hf


def test_new_rows_are_the_mean_of_the_old(tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", "llama")))
    own = build_model(source.config.model)
    params = source.load_params(own, hf.mesh())
    wider = build_model(dataclasses.replace(source.config.model, vocab_size=256))
    # The tokenizer had 150 tokens, and 4 were added. Their rows and the 96 new rows are means; the
    # padding rows between them stay.
    fitted = fit_vocabulary(params, wider, hf.mesh(), n_given=150, n_tokens=154)
    for name, old, new in (
        ("embedding", params["embedding"], fitted["embedding"]),
        ("head", params["head"].T, fitted["head"].T),
    ):
        assert new.shape == (256, 48), name
        np.testing.assert_array_equal(new[:150], old[:150])
        np.testing.assert_array_equal(new[154:160], old[154:160])
        mean = np.asarray(old)[:150].mean(axis=0)
        for row in (*range(150, 154), 160, 255):
            np.testing.assert_allclose(new[row], mean, atol=1e-6)
    same = fit_vocabulary(params, own, hf.mesh(), n_given=160, n_tokens=160)
    assert same["embedding"] is params["embedding"]


@pytest.mark.parametrize("scale", [1e-20, 1.0, 3e4])
def test_new_rows_are_the_same_to_the_bit_on_every_mesh(tmp_path, scale):
    source = open_model_source(str(write_folder(tmp_path / "released", "llama")))
    wider = build_model(dataclasses.replace(source.config.model, vocab_size=256))
    values = np.random.default_rng(0).normal(size=(160, 48)).astype(np.float32) * np.float32(scale)
    values[:, 7] += np.float32(3 * scale)  # A column whose mean is far from 0.
    mean = values[:150].astype(np.float64).mean(axis=0)
    found = []
    for sizes in ({}, {"fsdp": 2}, {"fsdp": 4, "tensor": 2}, {"tensor": 8}):
        mesh = hf.mesh(**sizes)
        own = build_model(source.config.model)
        shardings = rules.tree_shardings(mesh, own.logical_axes, own.shapes)
        params = source.load_params(own, mesh)
        params["embedding"] = jax.device_put(values, shardings["embedding"])
        params["head"] = jax.device_put(values.T, shardings["head"])
        fitted = fit_vocabulary(params, wider, mesh, n_given=150, n_tokens=154)
        found += [np.asarray(fitted["embedding"])[255], np.asarray(fitted["head"])[:, 255]]
    for row in found:
        np.testing.assert_array_equal(row, found[0])
    np.testing.assert_allclose(found[0], mean, rtol=2e-7, atol=np.abs(values).max() * 2.0**-24)


@pytest.mark.parametrize(("n_rows", "bits"), [(2**19 - 1, 24), (2**19, 22), (2**20, 20)])
def test_the_mean_of_very_many_rows_has_the_bits_that_are_promised(n_rows, bits):
    row = np.float32([-1.0, 1 / 3, 0.7, 1e-3])  # All rows round alike, so no errors cancel.
    found = _mean_of_rows(jax.numpy.broadcast_to(row, (n_rows, 4)))
    np.testing.assert_allclose(found[0], row, rtol=2e-7, atol=2.0**-bits)


def test_a_run_starts_from_a_folder_or_a_workdir(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    config = resolve_init(config_from(folder, dropout=0.1, remat="full"))
    assert (config.model.d_model, config.model.head_dim) == (48, 20)
    assert (config.model.dropout, config.model.remat) == (0.1, "full")
    assert config.tokenizer.path == str(folder)
    assert resolve_init(config) == config
    model = build_model(config.model)
    mesh = hf.mesh()
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    params = init_params(model, config, shardings)
    want = hf.our_params(hf.reference("llama_tied"), model.config)
    jax.tree.map(np.testing.assert_array_equal, params, want)

    import_model(str(folder), str(tmp_path / "run"))
    config = resolve_init(config_from(tmp_path / "run"))
    assert config.tokenizer.path == str(tmp_path / "run" / "tokenizer")
    jax.tree.map(np.testing.assert_array_equal, init_params(model, config, shardings), want)


def test_a_recipe_that_trains_a_tokenizer_takes_that_of_a_pretrained_model(tmp_path):
    """The first command of README's "Train on your own data"."""
    folder = write_folder(tmp_path / "released", "llama_tied")
    overrides = [f"--config.model.init_from={folder}", "--config.data.max_length=48"]
    assert config_file.load("configs/jsonl.py").tokenizer.train_vocab_size == 4096
    config = resolve_init(config_file.load("configs/jsonl.py", overrides))
    assert (config.tokenizer.path, config.tokenizer.train_vocab_size) == (str(folder), 0)
    other = config_file.load("configs/jsonl.py", ["--config.tokenizer.path=x.model"])
    assert (other.tokenizer.path, other.tokenizer.train_vocab_size) == ("x.model", 0)


def test_a_larger_tokenizer_makes_more_rows(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    write_tokenizer(folder, n_words=170)
    config = resolve_init(config_from(folder))
    assert config.model.vocab_size == 256
    assert load_model(open_model_source(str(folder))).params["embedding"].shape == (256, 48)


def test_a_larger_tokenizer_beside_an_imported_model_makes_more_rows(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    import_model(str(folder), str(tmp_path / "run"))
    write_tokenizer(tmp_path / "larger", n_words=163)
    config = config_from(tmp_path / "run")
    tokenizer = dataclasses.replace(config.tokenizer, path=str(tmp_path / "larger"))
    config = resolve_init(dataclasses.replace(config, tokenizer=tokenizer))
    model = build_model(config.model)
    shardings = rules.tree_shardings(hf.mesh(), model.logical_axes, model.shapes)
    table = np.asarray(init_params(model, config, shardings)["embedding"])
    np.testing.assert_allclose(table[160:], np.tile(table[:160].mean(axis=0), (96, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(d_model=96), r"config.model.d_model: 96, but .* has 48"),
        (dict(vocab_size=128), "config.model.vocab_size: expected at least the 160 rows"),
        (dict(architecture="encoder_decoder"), "architecture: encoder_decoder, but .* is decoder"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(model, message, tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    with pytest.raises(UserError, match=message):
        resolve_init(config_from(folder, **model))


def test_rows_longer_than_the_model_are_refused(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    config = config_from(folder)
    data = dataclasses.replace(config.data, max_length=512)
    with pytest.raises(UserError, match=r"max_length: 512 is more than the 256 positions"):
        resolve_init(dataclasses.replace(config, data=data))


def test_what_ends_an_answer_comes_from_generation_config(tmp_path, caplog, capfd):
    folder, workdir = write_folder(tmp_path / "released", "llama_tied"), tmp_path / "run"
    edit_json(folder / "config.json", eos_token_id=4)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert open_model_source(str(folder)).config.evaluation.stop_ids == (4,)
    edit_json(folder / "generation_config.json", eos_token_id=[1, 7, 9])
    import_model(str(folder), str(workdir))
    caplog.clear()
    capfd.readouterr()
    loaded = load_model(open_model_source(str(workdir)))
    assert "read_only" not in caplog.text + "".join(capfd.readouterr())
    assert not caplog.records, caplog.text
    assert loaded.config.evaluation.stop_ids == (1, 7, 9)
    assert resolve_init(config_from(workdir)).evaluation.stop_ids == (1, 7, 9)
    config = dataclasses.replace(loaded.config, format=FormatConfig("plain"))
    text_generator = TextGenerator(config, loaded.tokenizer, loaded.model)
    assert set(text_generator.stops.ids) == {1, 7, 9}
    # A run with another tokenizer has other ids.
    config = config_from(folder)
    tokenizer = dataclasses.replace(config.tokenizer, path=str(folder))
    assert not resolve_init(dataclasses.replace(config, tokenizer=tokenizer)).evaluation.stop_ids
    edit_json(folder / "generation_config.json", eos_token_id="</s>")
    with pytest.raises(UserError, match="generation_config.json: eos_token_id is '</s>'; expected"):
        open_model_source(str(folder))
