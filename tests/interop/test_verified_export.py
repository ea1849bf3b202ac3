"""What is exported is read back before it gets its name, here and in `transformers`."""

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import transformers

from ift_jax.checkpoint.export_model import export_model
from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.init_from import resolve_init
from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.run_description import save_description
from ift_jax.config.schema import FormatConfig
from ift_jax.errors import UserError
from ift_jax.interop import hugging_face_export
from ift_jax.interop.hugging_face_export import export
from ift_jax.interop.sample_texts import SAMPLE_TEXTS
from ift_jax.models import build_model
from tests.interop.folders import (
    config_from,
    edit_json,
    load_in_transformers,
    logits,
    write_folder,
    write_tokenizer,
)
from tests.models import hugging_face as hf
from tests.small_models import CONFIG, random_params
from tests.text.small_tokenizers import huggingface_tokenizer, sentencepiece_tokenizer

pytestmark = pytest.mark.usefixtures("one_device")
TEMPLATE = "{% for m in messages %}{{ m['content'] }} </s>{% endfor %}"


def export_source(source, out, **options):
    loaded = load_model(source)
    return export(loaded.model, loaded.params, loaded.tokenizer, str(out), **options)


def test_a_qwen2_with_another_tokenizer_is_a_llama_with_the_same_ids_and_logits(tmp_path):
    folder = write_folder(tmp_path / "released", "qwen2")
    write_tokenizer(folder)  # Words: nothing that Qwen2's own class could give.
    out = tmp_path / "out"
    source = open_model_source(str(folder))
    (note,) = export_source(source, out, template=TEMPLATE, source_dtypes=source.dtypes())
    assert note.startswith("exported as llama, with output biases of zero")
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["attention_bias"]) == ("llama", True)
    back = load_in_transformers(out, "llama")
    np.testing.assert_array_equal(logits(back, "llama"), logits(hf.reference("qwen2"), "qwen2"))
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    text = "w9 w11 </s> unheard-of"
    assert theirs.encode(text) == source.tokenizer().encode_with_controls(text) == [9, 11, 1, 3]
    again = open_model_source(str(out)).config.model
    assert again.qkv_bias and again.output_bias


@pytest.mark.parametrize("tokenizer", [sentencepiece_tokenizer, huggingface_tokenizer])
def test_a_qwen2_from_scratch_keeps_every_letter(tokenizer, tmp_path):
    model = build_model(dataclasses.replace(CONFIG.model, vocab_size=512, qkv_bias=True))
    params = random_params(model)
    out = tmp_path / "out"
    notes = export(model, params, tokenizer(), str(out), template=TEMPLATE)
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    for text in SAMPLE_TEXTS:
        assert theirs.encode(text, add_special_tokens=False) == tokenizer().encode(text)
    assert notes and json.loads((out / "config.json").read_text())["model_type"] == "llama"


def test_a_qwen2_with_its_own_tokenizer_remains_one(tmp_path):
    folder = write_folder(tmp_path / "released", "qwen2")
    assert export_source(open_model_source(str(folder)), tmp_path / "out") == ()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "qwen2"


def test_windows_beside_biases_and_another_tokenizer_are_a_family_that_has_both(tmp_path):
    folder = write_folder(tmp_path / "released", "qwen2_local")
    write_tokenizer(folder)
    out = tmp_path / "out"
    (note,) = export_source(open_model_source(str(folder)), out)
    assert note.startswith("exported as smollm3, with output biases of zero")
    want = logits(hf.reference("qwen2_local"), "qwen2_local")
    np.testing.assert_array_equal(logits(load_in_transformers(out, "smollm3"), "smollm3"), want)


SAMPLING = {
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "max_new_tokens": 99,
}


def written_by_run(folder, base):
    """The workdir of a run that started from a folder or another workdir."""
    config = dataclasses.replace(config_from(base), format=FormatConfig("model"))
    config = resolve_init(config)
    loaded = load_model(open_model_source(str(base)))
    folder.mkdir()
    save_description(str(folder), config, loaded.tokenizer)
    checkpoints = Checkpoints(str(folder))
    checkpoints.save(5, {"params": loaded.params})
    checkpoints.close()
    return folder


@pytest.mark.parametrize("way", ["import", "run", "import and run"])
def test_sampling_defaults_survive(way, tmp_path):
    path = write_folder(tmp_path / "released", "llama")
    write_tokenizer(path, chat_template=TEMPLATE)
    written = SAMPLING | {"eos_token_id": [1, 7], "transformers_version": "4.44.0"}
    (path / "generation_config.json").write_text(json.dumps(written))
    if "import" in way:
        import_model(str(path), str(tmp_path / "imported"))
        path = tmp_path / "imported"
    if "run" in way:
        path = written_by_run(tmp_path / "run", path)
    out = tmp_path / "out"
    source = open_model_source(str(path))
    export_model(source, load_model(source), str(out))
    fields = json.loads((out / "generation_config.json").read_text())
    assert fields == SAMPLING | {"eos_token_id": [1, 7], "pad_token_id": 0, "bos_token_id": 2}
    theirs = transformers.GenerationConfig.from_pretrained(out)
    assert (theirs.temperature, theirs.top_k, theirs.do_sample) == (0.6, 20, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", "hot"), ("do_sample", 1), ("top_k", -1), ("eos_token_id", "</s>")],
)
def test_a_wrong_sampling_default_is_refused_by_name(field, value, tmp_path):
    folder = write_folder(tmp_path / "released", "llama")
    edit_json(folder / "generation_config.json", **{field: value})
    with pytest.raises(UserError, match=f"generation_config.json: {field} is .*; expected"):
        open_model_source(str(folder))


def spoil_tokenizer(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"w9":9', '"w9":10').replace('"w10":10', '"w10":9'))


def spoil_weights(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def spoil_template(folder):
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("</s>", "<s>"))


FAULTS = {
    "a lost bit": (spoil_weights, "model.layers.2.* is not what was written"),
    "other ids": (spoil_tokenizer, "this package gives 'w9 w10' the ids"),
    "an end that moved": (
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="<s>"),
        "its eos_id is 2, not 1",
    ),
    "another field": (
        lambda folder: edit_json(folder / "config.json", rms_norm_eps=1e-3),
        "config gives {'norm_eps': 0.001}",
    ),
    "another template": (spoil_template, "transformers .* gives 'a conversation' the ids"),
    "a template that goes on": (
        lambda folder: (folder / "chat_template.jinja").write_text(TEMPLATE + " w9"),
        r"the ids \[9\]... where the tokenizer gives \[\]... \(from id 14 on\)",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_folder_that_does_not_read_back_is_no_export(case, tmp_path, monkeypatch):
    spoil, message = FAULTS[case]
    source = open_model_source(str(write_folder(tmp_path / "released", "llama")))
    monkeypatch.setattr("ift_jax.interop.verify_export.SAMPLE_TEXTS", ("w9 w10", "w11"))
    write_files = hugging_face_export.write_files

    def write_and_spoil(folder, files):
        write_files(folder, files)
        spoil(type(tmp_path)(folder))

    monkeypatch.setattr(hugging_face_export, "write_files", write_and_spoil)
    tokenizer = source.tokenizer()
    chat_ids = tokenizer.encode_with_controls(
        "Name 3 colors, please. </s>Red, green and blue. </s>And in caf\u00e9s? </s>"
    )
    with pytest.raises(UserError, match=f"--output: the export .*{message}"):
        export_source(source, tmp_path / "out", template=TEMPLATE, chat_ids=chat_ids)
    assert not (tmp_path / "out").exists()
