"""GGUF files, written here as llama.cpp's converter writes them."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

gguf = pytest.importorskip("gguf", reason="GGUF files are written and read with it")

from ift_jax.errors import UserError  # noqa: E402
from ift_jax.interop.gguf import open_gguf  # noqa: E402
from ift_jax.interop.hugging_face_config import from_hugging_face  # noqa: E402
from ift_jax.text.tokenizers.load import load_tokenizer  # noqa: E402
from tests.interop.gguf_files import gguf_bytes  # noqa: E402
from tests.text.small_tokenizers import TEXTS  # noqa: E402

N_LAYERS = 2
WIDTH = 64
MLP_WIDTH = 96
N_HEADS = 4
N_KV_HEADS = 2
HEAD_DIM = WIDTH // N_HEADS
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Hugging Face's names, in a layer or outside -> llama.cpp's.
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
LAYER_SHAPES = {
    "input_layernorm": (WIDTH,),
    "post_attention_layernorm": (WIDTH,),
    "self_attn.q_proj": (N_HEADS * HEAD_DIM, WIDTH),
    "self_attn.k_proj": (N_KV_HEADS * HEAD_DIM, WIDTH),
    "self_attn.v_proj": (N_KV_HEADS * HEAD_DIM, WIDTH),
    "self_attn.o_proj": (WIDTH, N_HEADS * HEAD_DIM),
    "mlp.gate_proj": (MLP_WIDTH, WIDTH),
    "mlp.up_proj": (MLP_WIDTH, WIDTH),
    "mlp.down_proj": (WIDTH, MLP_WIDTH),
}


def trained_tokenizer() -> tokenizers.Tokenizer:
    """A tokenizer of SmolLM2's kind, from parts that are chosen here."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def random_weights(n_vocab):
    """Random weights by Hugging Face's names, as rows x columns."""
    shapes = {"model.embed_tokens": (n_vocab, WIDTH), "model.norm": (WIDTH,)}
    for layer in range(N_LAYERS):
        for name, shape in LAYER_SHAPES.items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def interleaved(weight, n_heads):
    """llama.cpp's layout of queries and keys: the two halves of each head interleaved."""
    n_rows, n_columns = weight.shape
    halves = weight.reshape(n_heads, 2, n_rows // n_heads // 2, n_columns)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write(path, tensors, tokenizer, quantized=(), arch="llama", **changes):
    """Writes a file; tensors whose llama.cpp name is in `quantized` as Q8_0."""
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(N_LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP_WIDTH)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    add_tokenizer(writer, tokenizer, pre=changes.get("pre", "smollm"))
    for name, weight in tensors.items():
        add_tensor(writer, name, weight, quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer, tokenizer, pre):
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")


def add_tensor(writer, name, weight, quantized):
    block = ""
    if name.startswith("model.layers."):
        _, _, layer, name = name.split(".", 3)
        block = f"blk.{layer}."
    theirs = NAMES[name]
    if theirs in ("attn_q", "attn_k"):
        weight = interleaved(weight, N_HEADS if theirs == "attn_q" else N_KV_HEADS)
    full_name = f"{block}{theirs}.weight"
    if theirs in quantized:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(full_name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    else:
        writer.add_tensor(full_name, weight)


def test_tensors_config_and_tokenizer(tmp_path):
    tokenizer = trained_tokenizer()
    want = random_weights(tokenizer.get_vocab_size())
    path = tmp_path / "m.gguf"
    write(path, want, tokenizer, quantized=("ffn_down", "attn_q"))
    fields, tensors, files, _, stop_ids = open_gguf(str(path))
    assert stop_ids == (2,)
    config = from_hugging_face(fields, "m.gguf")
    assert (config.norm_eps, config.rope_theta, config.tied_embedding) == (1e-5, 1e5, True)
    assert (config.head_dim, config.n_kv_heads, config.max_length) == (16, 2, 128)
    assert set(tensors) == {f"{name}.weight" for name in want}
    for name, weight in want.items():
        tensor = tensors[f"{name}.weight"]
        assert tensor.shape == weight.shape
        part = (slice(3, 9), slice(2, None))[: weight.ndim]
        is_quantized = name.endswith(("down_proj", "q_proj"))
        tolerance = np.abs(weight).max() / 127 if is_quantized else 0
        np.testing.assert_allclose(tensor.read(part), weight[part], atol=tolerance)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ours = load_tokenizer(str(tmp_path))
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    for text in ("  42 apples", "Anna counts 456 systems!", "\u00e9 \U0001f600\n\n x", *SPECIAL):
        assert ours.encode_with_controls(text) == tokenizer.encode(text).ids
    assert files["chat_template.jinja"] == b"{{ messages }}"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["a", "Ġ", "Ġ12345"]),
        ("smollm", ["a", "ĠĠ", *"12345"]),
        ("llama-bpe", ["a", "Ġ", "Ġ", "123", "45"]),
        ("qwen2", ["a", "Ġ", "Ġ", *"12345"]),
    ],
)
def test_digits_are_cut_as_the_pre_tokenizer_says(pre, words, tmp_path):
    tokenizer = trained_tokenizer()
    weights = random_weights(tokenizer.get_vocab_size())
    write(tmp_path / "m.gguf", weights, tokenizer, pre=pre)
    files = open_gguf(str(tmp_path / "m.gguf")).tokenizer_files
    read = tokenizers.Tokenizer.from_str(files["tokenizer.json"].decode())
    assert [word for word, _ in read.pre_tokenizer.pre_tokenize_str("a  12345")] == words


def test_another_architecture_is_refused(tmp_path):
    tokenizer = trained_tokenizer()
    path = tmp_path / "m.gguf"
    write(path, random_weights(tokenizer.get_vocab_size()), tokenizer, arch="mamba")
    with pytest.raises(UserError, match="general.architecture is 'mamba'; expected 'llama'"):
        open_gguf(str(path))


@pytest.mark.parametrize(
    ("type_id", "message"),
    [
        (15, "type Q8_K, which the package gguf cannot dequantize"),
        (99, "type 99, which the installed package gguf does not know"),
    ],
)
def test_a_type_that_cannot_be_dequantized_is_refused(tmp_path, type_id, message):
    weight = {"blk.0.ffn_up.weight": np.ones((2, 256), np.uint8)}
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({}, weight, type_ids={"blk.0.ffn_up.weight": type_id}))
    with pytest.raises(UserError, match=f"tensor blk.0.ffn_up.weight is of {message}"):
        open_gguf(str(path))


def test_a_missing_and_a_truncated_file_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_gguf(str(tmp_path / "none.gguf"))
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(UserError, match="not a whole GGUF file"):
        open_gguf(str(tmp_path / "half.gguf"))
