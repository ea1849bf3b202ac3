"""A model exported as a GGUF file, read back here and by `transformers`."""

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

pytest.importorskip("gguf", reason="GGUF files are written and read with it")
pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.commands import main
from ift_jax.errors import UserError
from ift_jax.interop import gguf_export
from ift_jax.interop.gguf import open_gguf
from ift_jax.interop.gguf_export import export_gguf
from ift_jax.interop.hugging_face_config import from_hugging_face
from ift_jax.interop.safetensors_files import open_safetensors
from ift_jax.interop.sample_texts import SAMPLE_TEXTS
from ift_jax.models import build_model
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from tests.interop.folders import SPECIAL, logits, write_qwen2_tokenizer, write_tokenizer
from tests.interop.gguf_files import byte_letters
from tests.models import hugging_face as hf
from tests.small_models import random_params
from tests.text.small_tokenizers import sentencepiece_tokenizer

pytestmark = pytest.mark.usefixtures("one_device")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
NAMES = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}


def write_byte_level_tokenizer(folder: Path) -> None:
    """A tokenizer of SmolLM2's kind, with only a part of the alphabet."""
    letters = [letter for letter in byte_letters() if letter.isascii() or letter in "ĠĊ"]
    vocab = {token: i for i, token in enumerate([*SPECIAL, *letters, "ab", "abc"])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("a", "b"), ("ab", "c")]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "tokenizer_config.json").write_text(
        '{"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}'
    )
    (folder / "chat_template.jinja").write_text(TEMPLATE)


@functools.cache
def reference(name):
    """A small model of `hf.DECODERS`, or a Qwen3 with heads as its releases have them."""
    if name != "qwen3_wide":
        return hf.reference(name)
    config = hf.transformers.Qwen3Config(**hf.SIZES, head_dim=128, tie_word_embeddings=False)
    return hf.randomize(hf.transformers.Qwen3ForCausalLM(config)).eval()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Returns the folder of a released model by its name in `hf.DECODERS`."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            hf.save(reference(name), folders[name])
            write = write_qwen2_tokenizer if "qwen" in name else write_byte_level_tokenizer
            write(folders[name])
        return folders[name]

    return folder


def export_folder(folder, output, **options):
    source = open_model_source(str(folder))
    loaded = load_model(source)
    export_gguf(
        loaded.model,
        loaded.params,
        source.tokenizer(),
        str(output),
        source_dtypes=source.dtypes(),
        **options,
    )


@pytest.mark.parametrize(
    "name",
    ["llama", "llama_tied", "llama_linear", "mistral_global", "qwen2", "qwen3", "qwen3_wide"],
)
def test_a_file_gives_the_model_back_here_and_in_transformers(name, released, tmp_path):
    folder = released(name)
    path = tmp_path / "m.gguf"
    export_folder(folder, path, template=TEMPLATE, stop_ids=(5, 1), generation={"top_p": 0.75})
    read = open_gguf(str(path))
    source = open_model_source(str(folder))
    model = dataclasses.replace(source.config.model, init_from="")
    assert from_hugging_face(read.fields, "m.gguf") == model
    stored = open_safetensors(str(folder))
    assert read.tensors.keys() == stored.keys()
    for tensor_name, tensor in stored.items():
        everything = (slice(None),) * len(tensor.shape)
        np.testing.assert_array_equal(
            read.tensors[tensor_name].read(everything), tensor.read(everything)
        )
    assert read.stop_ids == (1, 5)
    assert read.generation == {"top_p": 0.75, "do_sample": True}
    assert read.tokenizer_files["chat_template.jinja"] == TEMPLATE.encode()
    ids = open_model_source(str(path)).tokenizer()
    for text in (*SAMPLE_TEXTS, "abc</s> 12 ab<pad>"):
        assert ids.encode_with_controls(text) == source.tokenizer().encode_with_controls(text)
    if name in ("llama_linear", "llama_tied", "qwen3"):
        return  # transformers reads no scaling, no biases of a Llama, no width of Qwen3's heads.
    theirs = hf.transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", attn_implementation="eager"
    )
    np.testing.assert_allclose(
        logits(theirs, name), logits(reference(name), name), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float16", "F16"), ("bfloat16", "BF16"), ("q8_0", "Q8_0")]
)
def test_matrices_have_the_type_that_was_asked_for_and_vectors_are_float32(
    dtype, kind, released, tmp_path
):
    import gguf

    path = tmp_path / "m.gguf"
    export_folder(released("llama"), path, dtype=dtype)
    reader = gguf.GGUFReader(str(path))
    types = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert types["output_norm.weight"] == types["blk.2.ffn_norm.weight"] == "F32"
    # Rows of 48 and 80 numbers are no multiple of Q8_0's 32.
    assert types["blk.0.attn_q.weight"] == ("F16" if dtype == "q8_0" else kind)
    assert set(types.values()) == {"F32", "F16" if dtype == "q8_0" else kind}


def test_eight_bits_a_weight_are_within_half_a_step(tmp_path):
    config = dataclasses.replace(hf.reference_and_config("llama")[1], d_model=64, d_ff=96)
    model = build_model(config)
    params = random_params(model)
    folder = tmp_path / "t"
    folder.mkdir()
    write_byte_level_tokenizer(folder)
    tokenizer = HuggingFaceTokenizer((folder / "tokenizer.json").read_text(), NAMES)
    export_gguf(model, params, tokenizer, str(tmp_path / "m.gguf"), dtype="q8_0")
    read = open_gguf(str(tmp_path / "m.gguf")).tensors["model.layers.1.mlp.up_proj.weight"]
    ours = np.asarray(params["layers"]["mlp"]["up"]["weight"])[1].T
    blocks = ours.reshape(ours.shape[0], -1, 32)
    steps = np.abs(blocks).max(-1, keepdims=True) / 127
    errors = np.abs(read.read((slice(None), slice(None))).reshape(blocks.shape) - blocks)
    # The step, of which there are up to 127, is rounded to 11 bits.
    assert (errors <= (0.5 + 127 / 2**11) * steps).all()
    assert errors.max() > 0


def scaled(name, **fields):
    """A small model's config with RoPE scaled."""
    return dataclasses.replace(hf.reference_and_config(name)[1], **fields)


LLAMA3 = {
    "rope_scaling": "llama3",
    "rope_theta": 500_000.0,
    "rope_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_original_length": 8192,
}
LINEAR = {"rope_scaling": "linear"}
YARN = {
    "rope_scaling": "yarn",
    "rope_factor": 4.0,
    "rope_original_length": 64,
    "rope_attention_factor": 0.1 * math.log(4.0) + 1,
    "rope_beta_fast": 32.0,
    "rope_beta_slow": 1.0,
    "rope_truncate": True,
}


@pytest.fixture(scope="module")
def byte_level_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_level_tokenizer(folder)
    return HuggingFaceTokenizer((folder / "tokenizer.json").read_text(), NAMES)


@pytest.mark.parametrize(("name", "fields"), [("llama", LLAMA3), ("qwen3", YARN), ("llama", YARN)])
def test_a_scaling_of_rope_comes_back(name, fields, byte_level_tokenizer, tmp_path):
    config = scaled(name, **fields)
    model = build_model(config)
    path = str(tmp_path / "m.gguf")
    export_gguf(model, random_params(model), byte_level_tokenizer, path)
    assert from_hugging_face(open_gguf(path).fields, path) == config


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("llama", {**LLAMA3, "rope_original_length": 32}, "rope_original_length is 32; a GGUF"),
        ("qwen3", {**YARN, "rope_beta_fast": 16.0}, "no place for config.model: rope_beta_fast"),
        ("qwen2", {"sliding_window": 8}, "no place for config.model: sliding_window = 8"),
        ("llama", {"activation": "gelu"}, "no place for config.model: activation = 'gelu'"),
        ("qwen3_odd", {}, "no place for config.model: qkv_bias = True, output_bias = True"),
        ("llama", {"rope_theta": 1e39}, r"llama.rope.freq_base is 1e\+39, and .* single precision"),
        (
            "llama",
            {"rope_theta": 1e-46},
            "rope.freq_base is 1e-46, and a .* single precision",
        ),
        ("llama", {"rope_theta": 1e-39}, "no place for config.model: rope_theta = 1e-39"),
        ("llama", {**LINEAR, "rope_factor": 1e39}, r"scaling.factor is 1e\+39, and a .* precision"),
        ("llama", {**LLAMA3, "rope_factor": 1e39}, r"rope_factor is 1e\+39; .* above 1 and below"),
        ("llama", {**LLAMA3, "rope_factor": 1e6}, r"rope_factor is 1e\+06; .* above 1 and below"),
        ("llama", {**LLAMA3, "rope_factor": 8.1}, "no place for config.model: rope_factor = 8.1"),
        ("olmo2", {}, "the model is a olmo2; GGUF files are written of llama, qwen2, qwen3"),
    ],
)
def test_a_model_that_a_file_cannot_hold_is_refused_by_name_before_it_is_written(
    name, fields, message, byte_level_tokenizer, tmp_path, monkeypatch
):
    monkeypatch.delattr(gguf_export, "write_gguf")
    model = build_model(scaled(name, **fields))
    with pytest.raises(UserError, match=message):
        export_gguf(model, random_params(model), byte_level_tokenizer, str(tmp_path / "m.gguf"))
    assert not list(tmp_path.iterdir())


def test_other_tokenizers_and_too_many_stop_tokens_are_refused(released, tmp_path):
    folder = released("llama")
    path = str(tmp_path / "m.gguf")
    loaded = load_model(open_model_source(str(folder)))
    model, params = loaded.model, loaded.params
    with pytest.raises(UserError, match="cannot hold this tokenizer: it is a SentencePiece model"):
        export_gguf(model, params, sentencepiece_tokenizer(), path)
    words = tmp_path / "words"
    write_tokenizer(words)
    tokenizer = HuggingFaceTokenizer((words / "tokenizer.json").read_text(), NAMES)
    with pytest.raises(UserError, match="cannot hold this tokenizer: it is a model of type Word"):
        export_gguf(model, params, tokenizer, path)
    with pytest.raises(UserError, match="answers end with 3 tokens beside EOS"):
        export_folder(folder, path, stop_ids=(3, 4, 5))
    assert not Path(path).exists()


def test_the_command_writes_a_file_that_import_reads(released, tmp_path, capsys):
    path = str(tmp_path / "out" / "small.gguf")
    workdir, back, base = str(tmp_path / "w"), str(tmp_path / "b"), str(released("llama"))
    assert main.main(["import", base, "--workdir", workdir]) == 0
    status = main.main(["export", "--workdir", workdir, "--output", path, "--dtype", "float32"])
    assert status == 0, capsys.readouterr().err
    assert f"is in {path}, a file for llama.cpp (" in capsys.readouterr().out
    assert main.main(["import", path, "--workdir", back]) == 0
    for flags, message in (
        ([], "is there already; name a new file"),
        (["--adapter"], "--adapter: is for folders"),
        (["--shard-size", "1"], "--shard-size: is for folders"),
    ):
        assert main.main(["export", "--workdir", workdir, "--output", path, *flags]) != 0
        assert message in capsys.readouterr().err
    folder = str(tmp_path / "folder")
    assert main.main(["export", "--workdir", workdir, "--output", folder, "--dtype", "q8_0"]) != 0
    assert "--dtype q8_0: is for GGUF files" in capsys.readouterr().err
