"""Folders of `transformers` in, and out again: the same tensors, logits and greedy text."""

import dataclasses
import json

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch
import transformers

from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.decoding import generate
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import family_of_fields
from ift_jax.interop.hugging_face_export import export
from ift_jax.interop.hugging_face_weights import load_params
from ift_jax.interop.safetensors_files import open_safetensors
from ift_jax.interop.tensor_table import leaf_at, leaves
from ift_jax.models import build_model
from ift_jax.sharding import rules
from tests.interop.folders import load_in_transformers, logits, stored_tensors, write_folder
from tests.models import hugging_face as hf

N_NEW = 32
STOP = (1, 7)
CORE = ("llama3", "gemma3", "phi3", "1.1")
each_family = pytest.mark.parametrize(
    "name",
    [
        name if name in CORE else pytest.param(name, marks=pytest.mark.slow)
        for name in (
            *hf.DECODERS,
            "phi3",
            "helium",
            "cohere_plus",
            "granite4",
            "gpt_neox",
            "1.0",
            "1.1",
            "mt5",
            "umt5",
            "t5gemma",
            "t5gemma2",
        )
    ],
)


@each_family
def test_import_greedy_text_and_export(name, tmp_path):
    reference = hf.reference(name)
    folder = write_folder(tmp_path / "released", name)
    source = open_model_source(str(folder))
    model = build_model(source.config.model)
    params = source.load_params(model, hf.mesh())

    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, hf.VOCAB, n).tolist() for n in (9, 12)]
    options = dict(max_new_tokens=N_NEW, stop_ids=(1,), pad_id=0)
    got = generate(model, params, prompts, **options)
    assert got == hf.greedy(reference, prompts, max_new_tokens=N_NEW)
    assert max(map(len, got)) >= 20

    tokenizer = source.tokenizer()
    out = tmp_path / "exported"
    template = "{% for m in messages %}{{ m['content'] }} </s>{% endfor %}"
    export(
        model,
        params,
        tokenizer,
        str(out),
        template=template,
        stop_ids=STOP,
        source_dtypes=source.dtypes(),
        model_type=source.model_type(),
        shard_bytes=50_000,
    )
    assert len(list(out.glob("model-*.safetensors"))) > 2
    back = load_in_transformers(out, name)
    assert back.config.model_type == reference.config.model_type or name.startswith("qwen2")
    np.testing.assert_array_equal(logits(back, name), logits(reference, name))
    assert back.generation_config.eos_token_id == list(STOP)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "w9 w11"}]
    ids = theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert ids == tokenizer.encode_with_controls("w9 w11 </s>") and theirs.pad_token_id == 0
    assert name.startswith("qwen2") or ids == [9, 11, 1]
    assert open_model_source(str(out)).config.model == source.config.model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name",
    [
        *("gpt_oss", "qwen3", "qwen3_5", "gemma4", "apertus", "phi3_longrope", "cohere_plus"),
        "1.1",
    ],
)
def test_an_untouched_model_comes_out_with_the_same_bytes(name, dtype, tmp_path):
    folder = write_folder(tmp_path / "released", name, dtype)
    import_model(str(folder), str(tmp_path / "workdir"))
    loaded = load_model(open_model_source(str(tmp_path / "workdir")))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {np.dtype("float32")}
    out = tmp_path / "exported"
    dtypes = open_model_source(str(tmp_path / "workdir")).dtypes()
    export(loaded.model, loaded.params, loaded.tokenizer, str(out), source_dtypes=dtypes)
    before, after = stored_tensors(folder), stored_tensors(out)
    assert before and {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {"lm_head.weight"}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == str(dtype)[6:]


def test_float16_that_does_not_fit_is_refused(tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", "llama3")))
    model = build_model(source.config.model)
    params = source.load_params(model, hf.mesh())
    params["embedding"] = params["embedding"].at[3, 3].set(1e5)
    with pytest.raises(UserError, match=r"float16: model.embed_tokens.weight .* 1e\+05"):
        export(model, params, source.tokenizer(), str(tmp_path / "out"), dtype="float16")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        export(model, params, source.tokenizer(), str(tmp_path / "full"))


@pytest.mark.parametrize("name", ["gemma3", "1.0"])
def test_each_device_gets_its_part(name, tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", name)))
    model = build_model(source.config.model)
    whole = source.load_params(model, hf.mesh())
    mesh = hf.mesh(fsdp=2, tensor=4)
    cut = source.load_params(model, mesh)
    shardings = dict(leaves(rules.tree_shardings(mesh, model.logical_axes, model.shapes)))
    n_cut = 0
    for path, leaf in leaves(cut):
        assert leaf.sharding == shardings[path]
        n_cut += not leaf.sharding.is_fully_replicated
        np.testing.assert_array_equal(leaf, leaf_at(whole, path))
    assert n_cut > 5
    out = tmp_path / "out"
    export(model, cut, source.tokenizer(), str(out), source_dtypes=source.dtypes())
    exported = stored_tensors(out)
    released = stored_tensors(tmp_path / "released")
    assert {name: exported[name] for name in source.dtypes()} == released


def test_known_copies_and_leftovers_are_accepted(tmp_path):
    released = write_folder(tmp_path / "released", "llama3")
    tensors = dict(open_safetensors(str(released)))
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = tensors["model.norm.weight"]
    model = build_model(open_model_source(str(released)).config.model)
    llama = family_of_fields({"model_type": "llama"}, "folder")
    load_params(model, hf.mesh(), tensors, "folder", llama)


def test_a_copy_that_differs_is_refused():
    tensors = dict(hf.tensors_of(hf.reference("1.0")))
    original = tensors["shared.weight"]
    assert "encoder.embed_tokens.weight" in tensors  # Kept by state_dict beside shared.weight.
    tensors["encoder.embed_tokens.weight"] = dataclasses.replace(
        original, read=lambda index: original.read(index) + 1
    )
    model = build_model(hf.reference_and_config("1.0")[1])
    t5 = family_of_fields({"model_type": "t5"}, "folder")
    with pytest.raises(UserError, match="encoder.embed_tokens.weight differs"):
        load_params(model, hf.mesh(), tensors, "folder", t5)
