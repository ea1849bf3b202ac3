"""Hugging Face folders that cannot be used are refused in one line that says why."""

import json
import shutil

import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.errors import UserError
from ift_jax.models import build_model
from tests.interop.folders import edit_json, write_folder
from tests.models import hugging_face as hf


def rewrite_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def edit_config(folder, **fields):
    edit_json(folder / "config.json", **fields)


def first_shard(folder):
    return min(folder.glob("model-*.safetensors"))


def leave_only_pickles(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def remove_weights(folder):
    leave_only_pickles(folder)
    (folder / "pytorch_model.bin").unlink()


def cut_short(folder):
    first_shard(folder).write_bytes(first_shard(folder).read_bytes()[:-10])


def name_a_file_outside(folder):
    rewrite_index(folder, lambda files: files.update(dict.fromkeys(files, "../x.safetensors")))


BAD = {
    "epsilon": (
        lambda folder: edit_config(folder, rms_norm_eps=0.0),
        r"config\.json: config\.model\.norm_eps: expected more than 0",
    ),
    "pickles": (leave_only_pickles, "safe_serialization=True"),
    "nothing": (remove_weights, "expected model.safetensors"),
    "cut short": (cut_short, "not a whole safetensors file: it ends before"),
    "a shard missing": (lambda folder: first_shard(folder).unlink(), "a shard is missing"),
    "outside": (
        name_a_file_outside,
        r"names '../x.safetensors'; expected a .safetensors file beside",
    ),
    "not json": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{"),
        "index.json: column 2: .*; expected a JSON object",
    ),
    "layers missing": (
        lambda folder: edit_config(folder, num_hidden_layers=4),
        r"missing: model.layers.3.* \(9 in all\)",
    ),
    "layers too many": (
        lambda folder: edit_config(folder, num_hidden_layers=2),
        r"surplus: model.layers.2.* \(9 in all\)",
    ),
    "another width": (
        lambda folder: edit_config(folder, intermediate_size=96),
        r"misshapen: model.layers.0.mlp.down_proj.weight \(48, 80\) instead of \(48, 96\), .*9 in",
    ),
    "family": (
        lambda folder: edit_config(folder, model_type="mamba"),
        "model_type is 'mamba'; expected one of the .* that docs/model_types.md lists",
    ),
    "images": (
        lambda folder: edit_config(folder, model_type="llava", text_config={}),
        "model_type is 'llava'; expected one of the .* that docs/model_types.md lists",
    ),
    "unknown field": (
        lambda folder: edit_config(folder, residual_multiplier=0.22),
        "residual_multiplier = 0.22 is not supported",
    ),
    "rope": (
        lambda folder: edit_config(folder, rope_parameters={"rope_type": "ntk", "factor": 4.0}),
        "rope_type is 'ntk'; expected",
    ),
    "activation": (
        lambda folder: edit_config(folder, hidden_act="quick_gelu"),
        "hidden_act is 'quick_gelu'; expected",
    ),
    "quantized": (
        lambda folder: edit_config(folder, quantization_config={"bits": 4}),
        "quantization_config = .* is not supported",
    ),
    "a field missing": (
        lambda folder: edit_config(folder, intermediate_size=None),
        "intermediate_size is null; expected a whole number",
    ),
    "tied and not": (
        lambda folder: edit_config(folder, tie_word_embeddings=True),
        "lm_head.weight differs from model.embed_tokens.weight",
    ),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folders") / "released", "llama3")


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused_in_one_line(case, released, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(released, folder)
    spoil, message = BAD[case]
    spoil(folder)

    def read():
        source = open_model_source(str(folder))
        source.load_params(build_model(source.config.model), hf.mesh())

    with pytest.raises(UserError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_import_refuses_a_folder_with_something_in_it(released, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        import_model(str(released), str(tmp_path))
